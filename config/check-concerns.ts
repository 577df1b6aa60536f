/** Runs the checks of concerns, at every level at which the file sets their keys. */
import type { Steps } from '../plugins/time-slices.ts'
import { checkFacts } from './check-facts.ts'
import type { Checked, Key } from './concern.ts'
import { pointer } from './faults.ts'
import { writtenTargets } from './targets.ts'

export function* checkConcerns(checked: Checked): Steps<void> {
  const { data, keys } = checked
  const halves = ['edge', 'mesh'] as const
  for (const half of halves) checkSection(`/${half}`, data[half], keys[half], null, checked)
  if (checked.report.usable('/services')) {
    for (const [name, service] of Object.entries(data.services)) {
      yield
      const at = pointer('/services', name)
      if (checked.report.usable(at)) checkSection(`${at}/mesh`, service.mesh, keys.mesh, name, checked)
    }
  }
  if (checked.report.usable('/routes')) {
    for (const [index, route] of data.routes.entries()) {
      yield
      const at = pointer('/routes', index)
      if (!checked.report.usable(at)) continue
      checkSection(`${at}/edge`, route.edge, keys.edge, route.service ?? null, checked)
      for (const { at: place, services, mesh } of writtenTargets(at, route, checked.report)) {
        const [service = null, ...others] = services
        checkSection(`${place}/mesh`, mesh, keys.mesh, others.length === 0 ? service : null, checked)
      }
    }
  }
  const usable = { ...checked, data: withoutMalformed(checked) }
  for (const half of halves) {
    for (const key of keys[half]) {
      const steps = key.checkAll?.(usable)
      if (steps !== undefined) yield* steps
      yield
    }
  }
  // Skipped if a concern could not be loaded, since it might provide the facts.
  if (!keys.lackConcerns) yield* checkFacts(checked)
}

/** Returns the configuration as `checkAll` reads it: sections with a fault are empty, and options with a fault are off. */
function withoutMalformed({ data, report }: Checked): Checked['data'] {
  if (report.sound('')) return data
  const sectionOf = <T extends object | undefined>(at: string, section: T): T => {
    if (section !== undefined && !report.usable(at)) return {} as T
    // `mesh: false` stands for an edge without the mesh.
    if (typeof section !== 'object') return section
    const options = Object.entries(section).map(([name, value]) => [
      name,
      report.usable(pointer(at, name)) ? (value as unknown) : false
    ])
    return Object.fromEntries(options) as T
  }
  const withSections = <T extends { readonly edge?: object; readonly mesh?: object }>(at: string, holder: T): T => ({
    ...holder,
    ...(holder.edge !== undefined && { edge: sectionOf(`${at}/edge`, holder.edge) }),
    ...(holder.mesh !== undefined && { mesh: sectionOf(`${at}/mesh`, holder.mesh) })
  })
  return {
    ...withSections('', data),
    ...(report.usable('/routes') && {
      routes: data.routes.map((route, index) => {
        const at = pointer('/routes', index)
        return report.usable(at) ? withSections(at, route) : route
      })
    })
  }
}

/** Runs the checks of the concerns that a section sets. */
export function checkSection(
  at: string,
  section: object | undefined,
  keys: readonly Key[],
  service: string | null,
  checked: Checked
): void {
  const { report } = checked
  if (section === undefined || section === null || !report.usable(at)) return
  for (const key of keys) {
    const options: unknown = Reflect.get(section, key.name)
    const place = `${at}/${key.name}`
    if (options === undefined || options === false || options === null || !report.usable(place)) continue
    try {
      key.check?.(options, place, checked, { service })
    } catch (error) {
      // A value of another kind than the schema allows may make a check throw. Its fault is reported already.
      if (report.sound(place)) throw error
    }
  }
}
