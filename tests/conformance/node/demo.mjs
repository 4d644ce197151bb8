// The official TypeScript client drives the demo's script: node demo.mjs URL KEY, the chapters as JSON on standard input.
// Prints a line of JSON for each call: what a model would see. Whether it is right is for the test to say.
import { readFileSync } from "node:fs";
import { Client } from "@modelcontextprotocol/sdk/client/index.js";
import { StreamableHTTPClientTransport } from "@modelcontextprotocol/sdk/client/streamableHttp.js";

const [url, key] = process.argv.slice(2);
const chapters = JSON.parse(readFileSync(0, "utf8"));
const client = new Client({ name: "demo", version: "1" });
const requestInit = { headers: { Authorization: `Bearer ${key}` } };
await client.connect(new StreamableHTTPClientTransport(new URL(url), { requestInit }));

async function call(name, given) {
  const answer = await client.callTool({ name, arguments: given }, undefined, { timeout: 120_000 });
  const text = answer.content.filter((part) => part.type === "text").map((part) => part.text);
  const figures = answer.content.filter((part) => part.type === "image" && part.mimeType === "image/png").length;
  const structured = answer.structuredContent ?? {};
  return { text: text.join("\n"), figures, code: structured.error?.code ?? null, structured };
}

for (const chapter of chapters) {
  for (const { code, session_id } of chapter.steps) {
    const told = await call("python_repl", session_id === null ? { code } : { code, session_id });
    console.log(JSON.stringify({ said: "step", ...told }));
  }
  if (chapter.left_alone) {
    const until = Date.now() + 60_000;
    let states = [];
    do {
      await new Promise((wake) => setTimeout(wake, 200));
      const { structured } = await call("python_list_sessions", {});
      states = structured.sessions.map((session) => session.state);
    } while (states.some((state) => state !== "hibernated") && Date.now() < until);
    console.log(JSON.stringify({ said: "alone", states }));
  }
  for (const session_id of chapter.lists) {
    const { structured } = await call("python_list_variables", { session_id });
    console.log(JSON.stringify({ said: "listed", names: structured.variables.map((one) => one.name) }));
  }
  for (const session_id of chapter.deletes) await call("python_delete_session", { session_id });
}
const { structured } = await call("python_list_sessions", {});
for (const { session_id } of structured.sessions) await call("python_delete_session", { session_id });
await client.close();
console.log(JSON.stringify({ said: "end", left: structured.sessions.map((session) => session.session_id) }));
