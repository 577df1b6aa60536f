/** Checks `plugins`, and the names of plugins in routes. */
import { findPackageJSON } from 'node:module'
import { resolve } from 'node:path'
import { pathToFileURL } from 'node:url'
import { home } from '../plugins/home.ts'
import type { Steps } from '../plugins/time-slices.ts'
import { checkFile, namesIn } from './checked.ts'
import type { Checked } from './concern.ts'
import { pointer } from './faults.ts'
import { didYouMean } from './nearest.ts'
import { pluginName } from './schema/plugin.ts'
import type { Written } from './schema.ts'

type Plugin = Written['plugins'][number]

export function* checkPlugins(checked: Checked): Steps<void> {
  const { data, report } = checked
  if (!report.usable('/plugins')) return
  for (const index of data.plugins.keys()) {
    yield
    checkPlugin(index, checked)
  }
  if (!report.sound('/plugins')) return
  checkNames(checked)
  if (report.usable('/routes')) yield* checkRoutePlugins(checked)
}

function checkPlugin(index: number, checked: Checked): void {
  const { data, report } = checked
  const at = pointer('/plugins', index)
  const plugin = data.plugins[index]
  if (plugin === undefined || !report.usable(at)) return
  if (plugin.path !== undefined && plugin.package !== undefined) {
    report.fault(`${at}/package`, 'a plugin has either a path or a package, not both', 'key')
  } else if (plugin.path === undefined && plugin.package === undefined) {
    if (!report.unknownKeyIn(at)) report.fault(at, 'missing key "path" or "package"')
  }
  checkPosition(at, plugin, checked.keys.meshPlugins?.has(index) === true, checked)
  checkFile(`${at}/path`, plugin.path, checked)
  const { package: name } = plugin
  if (name === undefined || plugin.path !== undefined || !report.usable(`${at}/package`)) return
  if (!isInstalled(name, checked.absolute('.'))) {
    const near = [checked.absolute('.'), home].flatMap((folder) => namesIn(resolve(folder, 'node_modules')))
    report.fault(
      `${at}/package`,
      `no such package: ${name}${didYouMean(name, near)}; install it with npm in the folder of this file`
    )
  }
}

/** Returns whether a package can be resolved, from the configuration's folder or from the gateway. */
function isInstalled(name: string, folder: string): boolean {
  return [pathToFileURL(`${folder}/`).href, import.meta.url].some((base) => {
    try {
      return findPackageJSON(name, base) !== undefined
    } catch {
      return false
    }
  })
}

/**
 * Checks that `scope`, `order` and `prefix` of a plugin do not contradict each other. Names in the `order` of mesh concerns
 * are checked by the mesh.
 */
function checkPosition(at: string, plugin: Plugin, isOfMesh: boolean, { report, keys }: Checked): void {
  const { scope, order, prefix } = plugin
  const { positions = [], lackConcerns = false } = keys
  for (const key of ['before', 'after'] as const) {
    const name = order?.[key]
    const place = `${at}/order/${key}`
    if (name === undefined || !report.sound(place) || isOfMesh || lackConcerns || positions.includes(name)) continue
    const advice = didYouMean(name, positions) || `; possible are ${positions.join(', ')}`
    report.fault(place, `unknown position "${name}" among the edge concerns${advice}`)
  }
  if (order !== undefined && report.sound(`${at}/order`) && order.before !== undefined && order.after !== undefined) {
    report.fault(`${at}/order/after`, 'set either "before" or "after", not both', 'key')
  }
  if (prefix === undefined || !report.usable(`${at}/prefix`)) return
  const why = 'the hooks of a plugin with a prefix run only on its own routes'
  if (order !== undefined && report.usable(`${at}/order`)) report.fault(`${at}/order`, `no effect: ${why}`, 'key')
  if (scope === 'routes' && report.usable(`${at}/scope`)) report.fault(`${at}/scope`, `no effect: ${why}`, 'key')
}

/** Checks that configured names are unique. A module may be listed twice if no route refers to it. */
function checkNames({ data, report }: Checked): void {
  const places = new Map<string, string>()
  data.plugins.forEach((plugin, index) => {
    const at = pointer('/plugins', index)
    const name = pluginName(plugin)
    const isChosen = plugin.name !== undefined
    if (places.has(name) && isChosen) {
      report.fault(`${at}/name`, `duplicate plugin name "${name}"; it is also ${places.get(name)}`)
    }
    places.set(name, report.where(at))
  })
}

function* checkRoutePlugins({ data, report }: Checked): Steps<void> {
  const used = new Set<Plugin>()
  const names = [...new Set(data.plugins.map(pluginName))]
  for (const [index, route] of data.routes.entries()) {
    yield
    const list = pointer('/routes', index, 'plugins')
    if (!report.sound(list)) continue
    route.plugins?.forEach((name, item) => {
      const at = pointer(list, item)
      const [plugin, other] = data.plugins.filter((each) => pluginName(each) === name)
      if (plugin !== undefined) used.add(plugin)
      if (route.plugins!.indexOf(name) !== item) report.fault(at, `"${name}" is listed twice`)
      else if (plugin === undefined) report.fault(at, `no such plugin: ${name}${didYouMean(name, names)}`)
      else if (other !== undefined) report.fault(at, `several plugins are named "${name}"; give each a unique "name"`)
      else if (plugin.prefix !== undefined) {
        report.fault(at, `plugin "${name}" has a prefix, so its hooks run only on its own routes`)
      } else if (plugin.scope !== 'routes') {
        report.fault(
          at,
          `plugin "${name}" runs on all routes; set "scope: routes" to run it only on routes that list it`
        )
      }
    })
  }
  data.plugins.forEach((plugin, index) => {
    if (plugin.scope !== 'routes' || plugin.prefix !== undefined || used.has(plugin)) return
    const at = pointer('/plugins', index)
    report.warn(`${at}/scope`, `no route lists "${pluginName(plugin)}" in its "plugins", so its hooks never run`)
  })
}
