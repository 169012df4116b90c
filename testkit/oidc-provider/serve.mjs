// What both providers share: a loopback port, a control for the test, and counts of what was asked.
import { createServer } from 'node:http';

/// The settings that the test gave, changed by `POST /test`.
export const settings = JSON.parse(process.env.SETTINGS ?? '{}');

/// Listens, and says where. `start(issuer)` answers with the handler of requests; it is called again
/// after each change of the settings.
export async function serve(start) {
  const calls = {};
  let handle;
  const server = createServer(async (request, response) => {
    const path = new URL(request.url, 'http://localhost').pathname;
    try {
      if (path === '/test') {
        if (request.method === 'POST') {
          Object.assign(settings, JSON.parse(await body(request)));
          handle = await start(issuer);
        }
        answer(response, 200, calls);
      } else {
        calls[path] = (calls[path] ?? 0) + 1;
        await handle(request, response);
      }
    } catch (error) {
      console.error(error);
      if (!response.headersSent) answer(response, 500, { error: 'server_error' });
      response.end();
    }
  });
  await new Promise((listening) => server.listen(0, '127.0.0.1', listening));
  const issuer = `http://127.0.0.1:${server.address().port}`;
  handle = await start(issuer);
  console.log(`listening on ${issuer}`);
}

export async function body(request) {
  let text = '';
  for await (const chunk of request) text += chunk;
  return text;
}

export function answer(response, status, json) {
  response.writeHead(status, { 'content-type': 'application/json' });
  response.end(JSON.stringify(json));
}
