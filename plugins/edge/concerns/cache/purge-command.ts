/** The command `cache purge`: removes stored responses of a running gateway by its admin port. */
import { askAdmin } from '../../admin-client.ts'
import type { EdgeCommand } from '../../concern-commands.ts'
import type { Purged } from './admin.ts'
import { criteria } from './store.ts'

type Values = Readonly<Record<(typeof criteria)[number] | 'admin', string>> & { readonly all: boolean }

export const purgeCommand: EdgeCommand = {
  name: 'cache',
  usage: `  node app.ts cache purge         remove stored responses of the running gateway, by its admin port
                                  --path /a  --prefix /a/  --tag NAME  --host NAME  --route NAME  --all
                                  --admin http://HOST:PORT
`,
  options: {
    path: { type: 'string', default: '' },
    prefix: { type: 'string', default: '' },
    tag: { type: 'string', default: '' },
    host: { type: 'string', default: '' },
    route: { type: 'string', default: '' },
    all: { type: 'boolean', default: false },
    admin: { type: 'string', default: '' }
  },
  async run(load, action, values) {
    if (action !== 'purge')
      throw new Error(`cache takes the action "purge"${action === undefined ? '' : `, not "${action}"`}`)
    const { all, admin, ...given } = values as Values
    const chosen = criteria.filter((name) => given[name] !== '')
    if (all && chosen.length > 0) throw new Error(`cache purge: --all purges everything, and excludes --${chosen[0]}`)
    if (!all && chosen.length === 0)
      throw new Error(`cache purge takes one or more of --${criteria.join(', --')}; --all purges everything`)
    for (const name of ['path', 'prefix'] as const) {
      if (given[name] !== '' && !given[name].startsWith('/'))
        throw new Error(`cache purge: --${name} begins with a slash: "/${given[name]}"`)
    }
    const query = new URLSearchParams(all ? [['all', 'true']] : chosen.map((name) => [name, given[name]]))
    return textOf((await askAdmin('POST', `/admin/cache/purge?${query}`, admin, load)) as Partial<Purged>)
  }
}

/** Returns the text to print. */
function textOf({ purged = 0, memory, redis }: Partial<Purged>): string {
  const lines: string[] = []
  if (redis) lines.push('purged in Redis, for all nodes that share it')
  if (memory) {
    const count = `${purged} ${purged === 1 ? 'response' : 'responses'}`
    lines.push(`removed ${count} from the memory of this node only: purge each of the other nodes by --admin`)
  }
  return lines.length === 0 ? 'no route has edge.cache: there is nothing to purge' : lines.join('\n')
}
