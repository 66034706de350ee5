// Reads one entry of a zip over HTTP, by ranges only:
//
//	node zip.mjs URL ENTRY OUT
//
// OUT gets the contents of the entry, standard output the name and size of all
// entries, standard error what was asked for.
import { writeFile } from 'node:fs/promises';
import { HTTPRangeReader, unzip } from 'unzipit';

const [url, wanted, out] = process.argv.slice(2);
const ask = globalThis.fetch;
let bytes = 0;

globalThis.fetch = async (input, init = {}) => {
  const response = await ask(input, init);
  const method = init.method ?? 'GET';
  const range = new Headers(init.headers).get('range');
  console.error(method, range, response.status, response.headers.get('content-range'));
  if (method !== 'HEAD') {
    if (response.status !== 206) throw new Error(`${response.status} is not a part`);
    bytes += Number(response.headers.get('content-length'));
  }
  return response;
};

const { entries } = await unzip(new HTTPRangeReader(url));
for (const [name, entry] of Object.entries(entries)) console.log(`${entry.size} ${name}`);
await writeFile(out, new Uint8Array(await entries[wanted].arrayBuffer()));

const head = await ask(url, { method: 'HEAD' });
const size = Number(head.headers.get('content-length'));
console.error(`${bytes} of ${size} bytes`);
if (!(bytes > 0 && bytes < size / 2)) throw new Error('most of it was fetched');
