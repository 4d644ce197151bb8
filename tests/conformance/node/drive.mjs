// The official TypeScript client drives a session: node drive.mjs URL KEY. Prints one line of JSON.
import { Client } from "@modelcontextprotocol/sdk/client/index.js";
import { StreamableHTTPClientTransport } from "@modelcontextprotocol/sdk/client/streamableHttp.js";

const [url, key] = process.argv.slice(2);

async function connected(bearer) {
  const client = new Client({ name: "drive", version: "1" });
  const requestInit = { headers: { Authorization: `Bearer ${bearer}` } };
  await client.connect(new StreamableHTTPClientTransport(new URL(url), { requestInit }));
  return client;
}

let refused = 0;
try {
  await connected("a wrong key");
} catch (error) {
  refused = error.code ?? (String(error).includes("401") ? 401 : 0);
}

const client = await connected(key);
const session_id = "from typescript";
const outputs = [];
for (const code of ["x = 1", "x + 1"]) {
  const answer = await client.callTool({ name: "python_repl", arguments: { code, session_id } });
  outputs.push(answer.structuredContent.output);
}
let progress = 0;
await client.callTool({ name: "python_repl", arguments: { code: "sleep 0.5", session_id } }, undefined, {
  onprogress: () => (progress += 1),
});
const listed = await client.callTool({ name: "python_list_sessions", arguments: {} });
const sessions = listed.structuredContent.sessions.map((entry) => entry.session_id);
await client.callTool({ name: "python_delete_session", arguments: { session_id } });
await client.close();
console.log(JSON.stringify({ outputs, progress, sessions, refused }));
