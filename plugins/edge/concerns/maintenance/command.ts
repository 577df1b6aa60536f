/** The command `maintenance`: shows and switches the maintenance mode of a running gateway by its admin port. */
import { json } from 'node:stream/consumers'
import type { Config } from '../../../../config/schema.ts'
import { http } from '../../../node-http.ts'
import type { EdgeCommand } from '../../concern-commands.ts'
import { actions } from './admin.ts'
import type { ShownState } from './states.ts'

const timeoutMs = 10_000

interface Response {
  readonly routes?: readonly ShownState[]
  readonly withoutMaintenance?: readonly string[]
  readonly message?: string
}

export const maintenanceCommand: EdgeCommand = {
  name: 'maintenance',
  usage: `  node app.ts maintenance [on|off|reset]
                                  show or switch the maintenance mode of the running gateway, by its admin port
                                  --route NAME  --group NAME  --all  --admin http://HOST:PORT
`,
  options: {
    route: { type: 'string', default: '' },
    group: { type: 'string', default: '' },
    all: { type: 'boolean', default: false },
    admin: { type: 'string', default: '' }
  },
  async run(load, action = '', values) {
    const { route, group, all, admin } = values as { route: string; group: string; all: boolean; admin: string }
    const scope = Object.entries({ route, group, all: all ? 'true' : '' }).filter(([, value]) => value !== '')
    if (action !== '' && !actions.has(action))
      throw new Error(`maintenance ${action}: expected on, off or reset, or nothing to show the state`)
    if (action === '' && scope.length > 0)
      throw new Error('maintenance: say on, off or reset for a route, a group or all')
    if (action !== '' && scope.length !== 1)
      throw new Error(`maintenance ${action}: give one of --route NAME, --group NAME and --all`)
    const base = admin === '' ? baseOf(await load()) : admin
    if (!URL.canParse(base)) throw new Error(`--admin ${base}: expected a URL such as http://127.0.0.1:8081`)
    const path = action === '' ? '' : `/${action}?${new URLSearchParams(scope)}`
    const { routes = [], withoutMaintenance = [] } = await ask(action === '' ? 'GET' : 'POST', base, path)
    const lines = routes.map(lineOf)
    if (withoutMaintenance.length > 0) lines.push(`without edge.maintenance: ${withoutMaintenance.join(', ')}`)
    return lines.length === 0 ? 'no route has edge.maintenance' : lines.join('\n')
  }
}

/** Returns the URL of the admin port. */
function baseOf({ admin }: Config): string {
  if (admin === false) throw new Error('the configuration has admin: false; the mode is switched by the admin port')
  if (admin.port === 0)
    throw new Error('the configuration has admin.port: 0, any free port; name the URL by --admin http://127.0.0.1:PORT')
  const host = { '0.0.0.0': '127.0.0.1', '::': '::1' }[admin.host] ?? admin.host
  return `http://${host.includes(':') ? `[${host}]` : host}:${admin.port}`
}

async function ask(method: string, base: string, path: string): Promise<Response> {
  const url = new URL(`/admin/maintenance${path}`, base)
  const { promise, resolve, reject } = Promise.withResolvers<{ status: number; body: Response }>()
  const sent = http.request(url, { method, signal: AbortSignal.timeout(timeoutMs) }, (response) => {
    json(response).then((body) => resolve({ status: response.statusCode!, body: body as Response }), reject)
  })
  sent.on('error', reject).end()
  const { status, body } = await promise.catch((cause: Error) => {
    throw new Error(`no response of the admin port ${url.origin}: ${cause.message}; does the gateway run?`, { cause })
  })
  if (status !== 200) throw new Error(`the admin port responds ${status}: ${body.message}`)
  return body
}

function lineOf({ route, group, on, configured, switched, mode }: ShownState): string {
  const by = switched === null ? `configured: ${configured}` : `switched ${switched}, configured: ${configured}`
  const of = group === undefined ? '' : `, group ${group}`
  return `${route}: ${on ? 'on' : 'off'} (${by}${of}${mode === undefined ? '' : ', shadow mode'})`
}
