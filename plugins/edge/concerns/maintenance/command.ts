/** The command `maintenance`: shows and switches the maintenance mode of a running gateway by its admin port. */
import { askAdmin } from '../../admin-client.ts'
import type { EdgeCommand } from '../../concern-commands.ts'
import { actions } from './admin.ts'
import type { ShownState } from './states.ts'

interface Response {
  readonly routes?: readonly ShownState[]
  readonly withoutMaintenance?: readonly string[]
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
    const path = action === '' ? '' : `/${action}?${new URLSearchParams(scope)}`
    const method = action === '' ? 'GET' : 'POST'
    const response = (await askAdmin(method, `/admin/maintenance${path}`, admin, load)) as Response
    const { routes = [], withoutMaintenance = [] } = response
    const lines = routes.map(lineOf)
    if (withoutMaintenance.length > 0) lines.push(`without edge.maintenance: ${withoutMaintenance.join(', ')}`)
    return lines.length === 0 ? 'no route has edge.maintenance' : lines.join('\n')
  }
}

function lineOf({ route, group, on, configured, switched, mode }: ShownState): string {
  const by = switched === null ? `configured: ${configured}` : `switched ${switched}, configured: ${configured}`
  const of = group === undefined ? '' : `, group ${group}`
  return `${route}: ${on ? 'on' : 'off'} (${by}${of}${mode === undefined ? '' : ', shadow mode'})`
}
