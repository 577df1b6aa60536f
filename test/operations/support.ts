// A gateway that runs in this process with a configuration file of its own, so that it can be reloaded.
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import type { Test } from 'tap'
import { start } from '../../app.ts'
import { loadConfig } from '../../plugins/config.ts'
import { freePort } from '../helpers/processes.ts'

/** Starts a gateway, which the caller closes; `files` are written beside its configuration. `write` changes the file without a reload. */
export async function startFrom(t: Test, sections: object, files: Record<string, string> = {}) {
  const [port, adminPort] = [await freePort(), await freePort()]
  const folder = t.testdir(files)
  const file = join(folder, 'gateway.yaml')
  const listen = { host: '127.0.0.1', port, drain: { delay: 0, timeout: '5s' } }
  const write = (sections: object) =>
    writeFileSync(file, JSON.stringify({ listen, admin: { port: adminPort }, edge: { accessLog: false }, ...sections }))
  write(sections)
  const runtime = await start(await loadConfig(file))
  return { runtime, file, folder, port, adminPort, write }
}
