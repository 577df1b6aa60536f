/** Sources of instances that users' modules define: their keys, validated before the file is. */
import { schemaFault } from './compile.ts'
import type { SourceKey } from './concern.ts'
import type { Report } from './faults.ts'
import { pointer } from './faults.ts'
import { withId } from './schema-id.ts'
import type { PluginSourceKey } from './source-definition.ts'

/** Adds the sources of modules to the known ones. An item is null for a module without a source. */
export function pluginSources(
  modules: readonly ({ readonly instanceSource: PluginSourceKey | null } | null)[],
  report: Report,
  known: readonly SourceKey[]
): { readonly sources: readonly SourceKey[]; readonly areSound: boolean } {
  const sources = [...known]
  let areSound = true
  for (const [index, module] of modules.entries()) {
    const source = module?.instanceSource ?? null
    if (source === null) continue
    const at = pointer('/plugins', index)
    const isTaken = sources.some(({ name }) => name === source.name)
    const fault = isTaken
      ? `duplicate source of instances ${source.name}: its name is already in use`
      : schemaFaultIn(source)
    if (fault === null) sources.push(contained(source, at, report))
    else {
      report.fault(at, fault)
      areSound = false
    }
  }
  return { sources, areSound }
}

function schemaFaultIn({ name, service, options = {} }: SourceKey): string | null {
  for (const [key, schema] of Object.entries({ service, options })) {
    const fault = schemaFault(schema)
    if (fault !== null) return `"${key}" of its source of instances ${name} is not a valid JSON Schema: ${fault}`
  }
  return null
}

/** Wraps the functions of a user's source, so that an error that they throw becomes a fault. */
function contained(source: PluginSourceKey, entry: string, report: Report): SourceKey {
  const { name, options, service, needsOptions, findsConnect } = source
  const attempt = <T>(key: string, at: string, reporter: Report, call: () => T, otherwise: T): T => {
    try {
      return call()
    } catch (error) {
      reporter.fault(at, `"${key}" of source ${name} failed: ${error instanceof Error ? error.message : String(error)}`)
      return otherwise
    }
  }
  const checker =
    (key: 'check' | 'checkService'): NonNullable<SourceKey['check']> =>
    (value, at, checked) => {
      // Called only if the value fits the schema, which a user's check may rely on.
      if (checked.report.sound(at)) attempt(key, at, checked.report, () => source[key]?.(value, at, checked), undefined)
    }
  return {
    name,
    ...(options !== undefined && { options: withId(options, `discovery/${name}`) }),
    service: withId(service, `services/${name}`),
    needsOptions: needsOptions === true,
    findsConnect: findsConnect === true,
    check: checker('check'),
    checkService: checker('checkService'),
    ...(source.findsByName && {
      findsByName: (given: unknown) =>
        attempt('findsByName', entry, report, () => source.findsByName?.(given) === true, false)
    }),
    ...(source.backends && {
      backends: (given: unknown, service: string) =>
        attempt('backends', entry, report, () => source.backends?.(given, service) ?? [], [])
    }),
    complete: (given, absolute) =>
      attempt('complete', entry, report, () => source.complete?.(given, absolute) ?? given, given),
    completeService: (given, service, absolute) =>
      attempt(
        'completeService',
        entry,
        report,
        () => source.completeService?.(given, service, absolute) ?? given,
        given
      )
  }
}
