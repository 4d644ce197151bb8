// The official TypeScript client makes calls in their order: node calls.mjs URL KEY FILE. Prints one line of JSON.
import { readFileSync } from "node:fs";
import { Client } from "@modelcontextprotocol/sdk/client/index.js";
import { StreamableHTTPClientTransport } from "@modelcontextprotocol/sdk/client/streamableHttp.js";

const [url, key, file] = process.argv.slice(2);
const client = new Client({ name: "calls", version: "1" });
const requestInit = { headers: { Authorization: `Bearer ${key}` } };
await client.connect(new StreamableHTTPClientTransport(new URL(url), { requestInit }));

async function call({ tool, arguments: given, cancel_after }) {
  let progress = 0;
  const options = { onprogress: () => (progress += 1), timeout: 120_000, resetTimeoutOnProgress: true };
  if (cancel_after) options.signal = AbortSignal.timeout(cancel_after * 1000);
  try {
    const answer = await client.callTool({ name: tool, arguments: given }, undefined, options);
    const text = answer.content.filter((part) => part.type === "text").map((part) => part.text).join("\n");
    const figures = answer.content.filter((part) => part.type === "image").length;
    return { text, figures, fields: answer.structuredContent, progress, cancelled: false };
  } catch (error) {
    if (!cancel_after) throw error;
    return { text: String(error), figures: 0, fields: {}, progress, cancelled: true };
  }
}

async function untilAllSleep() {
  for (let n = 0; n < 600; n += 1) {
    const { fields } = await call({ tool: "python_list_sessions", arguments: {} });
    if (fields.sessions.every((entry) => entry.state === "hibernated")) return;
    await new Promise((wake) => setTimeout(wake, 200));
  }
  throw new Error("they do not sleep");
}

const answers = [];
for (const one of JSON.parse(readFileSync(file, "utf8"))) {
  if (one.left_alone) await untilAllSleep();
  answers.push(await call(one));
}
await client.close();
console.log(JSON.stringify(answers));
