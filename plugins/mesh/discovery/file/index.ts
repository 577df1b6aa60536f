/** Source of instances from a file that is read again when it changes: `discovery.file`, `services.*.file`. */
import { existsSync } from 'node:fs'
import type { Static } from 'typebox'
import type { Checked } from '../../../../config/concern.ts'
import { Duration, defaultsOf, Size, strict } from '../../../../config/schema/kit.ts'
import Type from '../../../../config/schema/type.ts'
import type { SourceContext } from '../contract.ts'
import { defineSource } from '../contract.ts'
import { WatchedSource } from '../watched.ts'
import { InstancesFile } from './instances-file.ts'

const Options = Type.Object(
  {
    path: Type.Optional(
      Type.String({ minLength: 1, description: 'JSON or YAML file with the instances of services, by their names.' })
    ),
    interval: Duration('Interval at which files are looked at. A change is used once two looks have found the same.', {
      default: '1s'
    }),
    maxSize: Size('A larger file is refused.', { default: '16mb' })
  },
  strict
)

const Service = Type.Object(
  {
    path: Type.Optional(
      Type.String({ minLength: 1, description: 'File of this service. Default: `discovery.file.path`.' })
    ),
    service: Type.Optional(
      Type.String({ minLength: 1, description: 'Name of the service in the file. Default: its name here.' })
    )
  },
  strict
)

type Options = Static<typeof Options>
type Service = Static<typeof Service>

declare module '../../../../config/schema.ts' {
  interface DiscoveryOptions {
    file?: Options
  }
  interface ServiceSources {
    file?: Service
  }
}

export default defineSource({
  name: 'file',
  options: Options,
  service: Service,
  findsByName: (options) => (options as Options).path !== undefined,
  check: (options, at, checked) => warnIfMissing((options as Options).path, at, checked),
  checkService(service, at, checked) {
    const { path } = service as Service
    const { data, report } = checked
    if (path === undefined && data.discovery.file?.path === undefined && report.usable('/discovery/file')) {
      if (!report.unknownKeyIn(at)) report.fault(at, 'needs a path, or discovery.file.path for all services')
    } else warnIfMissing(path, at, checked)
  },
  backends(service, name) {
    const { path = '', service: wanted = name } = service as Service
    return [`file ${path} ${wanted}`]
  },
  complete: withAbsolutePath,
  completeService: (service, _name, absolute) => withAbsolutePath(service, absolute),
  create: (options = defaultsOf(Options), context) => openFiles(options, context)
})

function openFiles(options: Options, context: SourceContext) {
  const files = new Map<string, InstancesFile>()
  const fileOf = (path: string) => {
    const file = files.get(path) ?? new InstancesFile(path, options, context.deps)
    files.set(path, file)
    return file
  }
  const pathOf = (chosen: Service | undefined) => {
    const path = chosen?.path ?? options.path
    if (path === undefined) throw new Error('discovery.file.path is not configured')
    return path
  }
  return {
    source({ name }: { readonly name: string }, chosen: Service | undefined) {
      const file = fileOf(pathOf(chosen))
      const wanted = chosen?.service ?? name
      return new WatchedSource(
        {
          kind: 'file',
          service: name,
          watch: (watching) => file.follow(watching, wanted),
          everyMs: 0,
          timeoutMs: 30_000,
          // The file says so, and not a registry that may have just restarted.
          emptyGraceMs: 0,
          isAlwaysFresh: true,
          label: null
        },
        context
      )
    },
    query: ({ name }: { readonly name: string }, chosen: Service | undefined) => ({
      file: pathOf(chosen),
      service: chosen?.service ?? name
    })
  }
}

/** Warns of a file that does not exist yet: another program may write it later. */
function warnIfMissing(path: string | undefined, at: string, { report, absolute }: Checked): void {
  if (path === undefined || !report.sound(at)) return
  const file = absolute(path)
  if (!existsSync(file))
    report.warn(`${at}/path`, `no such file yet: ${file}; until it exists, its services have no instances`)
}

function withAbsolutePath(section: unknown, absolute: (path: string) => string): unknown {
  const { path, ...rest } = section as { readonly path?: string }
  return path === undefined ? rest : { ...rest, path: absolute(path) }
}
