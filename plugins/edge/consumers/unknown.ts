/** Warns of names in rules that no declared consumer has: a misspelt one would leave a route open, or closed. */
import type { Checked, Key } from '../../../config/concern.ts'
import { pointer } from '../../../config/faults.ts'
import { didYouMean } from '../../../config/nearest.ts'

/** Returns whether a concern, with these options, also names callers that are not declared, such as by their tokens. */
const namesOthers = ({ provides = [], provided, authenticates }: Key, options: unknown): boolean =>
  Boolean(options) &&
  (provided?.(options) ?? provides).includes('consumer') &&
  authenticates?.onlyDeclared?.(options) !== true

type Names = readonly string[] | undefined

/** Names by the list of consumers, since many routes have rules. */
const known = new WeakMap<object, { readonly group: ReadonlySet<string>; readonly consumer: ReadonlySet<string> }>()

/** Checks the lists of a rule at their pointers. Nothing is checked where callers that are not declared may have such names. */
export function warnOfUnknown(
  lists: Readonly<Record<string, Names>>,
  kind: 'group' | 'consumer',
  at: string,
  { data, keys, report }: Checked
): void {
  const { consumers, edge, routes } = data
  if (!Array.isArray(consumers) || consumers.length === 0 || keys.lackConcerns || !report.sound('')) return
  if (data.plugins.some(({ provides }) => provides?.includes('consumer'))) return
  if (data.listeners.some(({ connect }) => connect !== undefined)) return
  const identifying = keys.edge.filter(
    ({ provides, hasNoGroups }) => provides?.includes('consumer') && !(kind === 'group' && hasNoGroups)
  )
  const [, index] = /^\/routes\/(\d+)\//.exec(at) ?? []
  for (const route of index === undefined ? routes : [routes[Number(index)]!]) {
    const policy = { ...edge, ...route.edge }
    if (identifying.some((key) => namesOthers(key, Reflect.get(policy, key.name)))) return
  }
  const names = known.get(consumers) ?? {
    group: new Set(consumers.flatMap(({ groups }) => groups)),
    consumer: new Set(consumers.map(({ name }) => name))
  }
  known.set(consumers, names)
  for (const [key, list = []] of Object.entries(lists)) {
    for (const [item, name] of list.entries()) {
      if (names[kind].has(name) || (kind === 'consumer' && name === '*')) continue
      const what =
        kind === 'group' ? `no declared consumer has the group "${name}"` : `no consumer "${name}" is declared`
      report.warn(pointer(at, key, item), `${what}${didYouMean(name, names[kind])}`)
    }
  }
}
