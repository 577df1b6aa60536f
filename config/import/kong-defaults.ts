/** Defaults and shared settings of a file of decK, written where they apply. */
import { Foreign } from './foreign.ts'

type Fields = Readonly<Record<string, unknown>>

const isMapping = (value: unknown): value is Fields =>
  typeof value === 'object' && value !== null && !Array.isArray(value)

const mapped = (value: unknown, change: (fields: Fields) => Fields): unknown =>
  Array.isArray(value) ? value.map((each: unknown) => (isMapping(each) ? change(each) : each)) : value

/** Returns the fields with another value of each key that they have. */
const changed = (fields: Fields, changes: Readonly<Record<string, (value: unknown) => unknown>>): Fields => ({
  ...fields,
  ...Object.fromEntries(
    Object.entries(changes).flatMap(([key, change]) => (Object.hasOwn(fields, key) ? [[key, change(fields[key])]] : []))
  )
})

/** Returns the file with `_info.defaults` at services, routes and upstreams, and `_plugin_configs` at plugins. */
export function withDefaults(root: Foreign): Foreign {
  const { _info: info, _plugin_configs: shared } = root.all
  const defaults = isMapping(info) && isMapping(info.defaults) ? info.defaults : {}
  const configs = isMapping(shared) ? shared : {}
  if (Object.keys(defaults).length === 0 && Object.keys(configs).length === 0) return root
  const usual = (kind: string): Fields => (isMapping(defaults[kind]) ? defaults[kind] : {})
  const plugins = (list: unknown) =>
    mapped(list, (plugin) => {
      const { _config: name, ...rest } = plugin
      const config = typeof name === 'string' && Object.hasOwn(configs, name) ? configs[name] : undefined
      if (!isMapping(config)) return plugin
      return { ...rest, config: { ...config, ...(isMapping(plugin.config) ? plugin.config : {}) } }
    })
  const routes = (list: unknown) => mapped(list, (route) => changed({ ...usual('route'), ...route }, { plugins }))
  const services = (list: unknown) =>
    mapped(list, (service) => changed({ ...usual('service'), ...service }, { plugins, routes }))
  const targets = (list: unknown) => mapped(list, (target) => ({ ...usual('target'), ...target }))
  const upstreams = (list: unknown) =>
    mapped(list, (upstream) => changed({ ...usual('upstream'), ...upstream }, { targets }))
  const owners = (list: unknown) => mapped(list, (owner) => changed(owner, { plugins }))
  const all = { plugins, routes, services, upstreams, consumers: owners, consumer_groups: owners }
  return new Foreign(changed(root.all, all), '')
}
