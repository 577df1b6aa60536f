/** Formats of the files with instances: JSON and YAML, own lists and those of Prometheus. Loaded with the first file. */
import type { Static } from 'typebox'
import { line, pointer, Report } from '../../../../config/faults.ts'
import { checkOrigin } from '../../../../config/instances.ts'
import { parsedAsync } from '../../../../config/parse.ts'
import { read } from '../../../../config/read.ts'
import { strict, Text, Url } from '../../../../config/schema/kit.ts'
import Type from '../../../../config/schema/type.ts'
import { withDefaults } from '../../../../config/settings.ts'
import { inSlices } from '../../../time-slices.ts'
import type { InstanceSpec } from '../../core/types.ts'
import type { Listed } from '../described.ts'
import { mostInstances, specOf } from '../described.ts'

const InstanceUrl = Url('http', 'Origin of an instance: scheme, host and port.')
const Texts = Type.Record(Type.String(), Type.String())

const Instance = Type.Object(
  {
    url: InstanceUrl,
    id: Type.Optional(Text),
    weight: Type.Integer({ minimum: 0, maximum: 65_535, default: 1 }),
    tags: Type.Optional(Type.Array(Text)),
    meta: Type.Optional(Texts),
    zone: Type.Optional(Text),
    datacenter: Type.Optional(Text)
  },
  strict
)

/** A group of a file for Prometheus' `file_sd_configs`. */
const Group = Type.Object({ targets: Type.Array(Type.String()), labels: Type.Optional(Texts) }, strict)

const target = /^(?:[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\]):([0-9]{1,5})$/

const isMapping = (value: unknown): value is Readonly<Record<string, unknown>> =>
  typeof value === 'object' && value !== null && !Array.isArray(value)

/** Returns the instances of a file. @throws an error with line and column if the file has a fault. */
export async function parseInstances(text: string, path: string): Promise<Listed> {
  if (text.trim() === '') throw new Error(`${path} is empty; write [] or {} for no instances`)
  const report = new Report(path)
  const listed = await parse(text, report)
    .catch((error: unknown) => {
      throw report.faults.length > 0 ? null : error
    })
    .catch((error: unknown) => error)
  const [fault, ...others] = report.faults
  if (fault === undefined) return listed as Listed
  const more = others.length === 0 ? '' : ` (and ${others.length} more ${others.length === 1 ? 'fault' : 'faults'})`
  throw new Error(line(fault) + more)
}

async function parse(text: string, report: Report): Promise<Listed> {
  const data = await inSlices(read(await parsedAsync(text, report), null, report))
  if (Array.isArray(data)) return listOf(data, '', report)
  if (!isMapping(data)) {
    report.fault('', 'expected a list of instances, or a mapping from services to such lists')
    return []
  }
  return new Map(Object.entries(data).map(([name, list]) => [name, listOf(list, pointer('', name), report)]))
}

function listOf(list: unknown, at: string, report: Report): readonly InstanceSpec[] {
  if (!Array.isArray(list)) {
    report.fault(at, 'expected a list of instances')
    return []
  }
  const specs = list.flatMap((item: unknown, index) => instancesOf(item, pointer(at, index), report))
  if (specs.length > mostInstances)
    report.fault(at, `has ${specs.length} instances; at most ${mostInstances} are allowed`)
  return Object.freeze(specs)
}

/** Returns the instances of an item: a URL, an instance, or a group of targets. */
function instancesOf(item: unknown, at: string, report: Report): InstanceSpec[] {
  if (isMapping(item) && 'targets' in item) return targetsOf(item, at, report)
  if (isMapping(item)) {
    const instance = withDefaults(Instance, item, at, report) as Static<typeof Instance>
    checkOrigin(`${at}/url`, instance.url, report)
    return report.sound(at) ? [specOf(instance)] : []
  }
  const url = withDefaults(InstanceUrl, item, at, report) as string
  checkOrigin(at, url, report)
  return report.sound(at) ? [specOf({ url })] : []
}

function targetsOf(item: object, at: string, report: Report): InstanceSpec[] {
  const { targets, labels = {} } = withDefaults(Group, item, at, report) as Static<typeof Group>
  if (!report.sound(at)) return []
  // Labels with two underscores are instructions for Prometheus.
  const meta = Object.fromEntries(Object.entries(labels).filter(([name]) => !name.startsWith('__')))
  const scheme = labels.__scheme__ === 'https' ? 'https' : 'http'
  return targets.flatMap((text, index) => {
    const port = Number(target.exec(text)?.[1])
    if (port >= 1 && port <= 65_535 && URL.canParse(`${scheme}://${text}`)) {
      return specOf({ url: `${scheme}://${text}`, meta })
    }
    report.fault(pointer(at, 'targets', index), 'expected host and port, such as 10.0.0.1:8080')
    return []
  })
}
