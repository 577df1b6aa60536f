/** Warnings of settings of declared consumers that have no effect on any route. */
import { lackingProviders } from './check-facts.ts'
import type { Checked, Key } from './concern.ts'
import { keysAt } from './concern.ts'
import type { Report } from './faults.ts'
import { pointer } from './faults.ts'
import type { ConsumerConfig } from './schema.ts'
import { isComposed } from './targets.ts'

/** Warns of the settings of one consumer; `report` is that of the file with the list. */
export type WarnOfIdle = (consumer: ConsumerConfig, at: string, report: Report) => void

/**
 * Returns the function that warns. Each kind of setting is reported once, since many consumers may have it. Nothing is reported
 * where the routes have faults, and where plugins may have routes with concerns.
 */
export function idleSettings(checked: Checked): WarnOfIdle {
  const { data, keys, report } = checked
  const isSound = ['/edge', '/routes', '/plugins', '/listen'].every((at) => report.sound(at))
  if (!isSound || keys.lackConcerns || data.plugins.length > 0 || data.routes.length === 0) return () => {}
  const policies = data.routes.map(({ edge }) => ({ ...data.edge, ...edge }))
  const isOn = ({ name }: Key) => policies.some((policy) => Reflect.get(policy, name))
  const identifies = ({ name, provides = [], provided }: Key) =>
    policies.some((policy) => {
      const options: unknown = Reflect.get(policy, name)
      return options && (provided?.(options) ?? provides).includes('consumer')
    })
  const credentials = new Set(keys.edge.filter((key) => key.credentials && !identifies(key)).map(({ name }) => name))
  const isBridged =
    data.forward !== undefined || data.routes.some((route) => route.via !== 'http-proxy' && !isComposed(route))
  const idle = new Map(keysAt(keys.edge, 'consumer').filter((key) => key.forConsumers && !isOn(key)).map((key) => [key.name, key])) // biome-ignore format: one line each
  let lacking = lackOnAll(checked)
  return (consumer, at, own) => {
    for (const name of Object.keys(consumer)) {
      if (!credentials.delete(name)) continue
      const what = `has no effect: no route identifies consumers by ${name}, so requests need no such credentials`
      own.warn(`${at}/${name}`, `${what}; set edge.${name} as well`, 'key')
    }
    for (const [name, options] of Object.entries(consumer.edge ?? {})) {
      const key = idle.get(name)
      if (key === undefined) continue
      const isOff = options === false || key.forConsumers?.needsRoute === true
      if (!isOff && (key.needsBridge === undefined || isBridged)) continue
      idle.delete(name)
      const what = isOff
        ? `no route enables ${name}; set edge.${name} as well`
        : `no route can have it: ${key.needsBridge}`
      own.warn(`${at}/edge/${name}`, `has no effect: ${what}`, 'key')
    }
    if (consumer.edge === undefined || lacking === null) return
    own.warn(`${at}/edge`, `has no effect: nothing on any route identifies the consumer; add ${lacking}`, 'key')
    lacking = null
  }
}

/** Returns who could identify the consumer, for messages; null if something does on a route. */
function lackOnAll(checked: Checked): string | null {
  let lacking: string | null = null
  for (const [index, route] of checked.data.routes.entries()) {
    lacking = lackingProviders('consumer', pointer('/routes', index), route, checked)
    if (lacking === null) return null
  }
  return lacking
}
