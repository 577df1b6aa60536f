/** The program, its version and the configuration file: in the log, on the admin port and as metrics. */
import { readFileSync } from 'node:fs'
import { findPackageJSON } from 'node:module'
import fp from 'fastify-plugin'
import type { Config } from '../../config/schema.ts'
import type { LastLoad } from './host.ts'

const manifest = readFileSync(findPackageJSON('..', import.meta.url)!, 'utf8')
export const { version } = JSON.parse(manifest) as { version: string }

const startedAt = new Date(performance.timeOrigin).toISOString()

/** Returns what an operator compares between the nodes of a cluster; and, of a running process, how the last load ended. */
export function about({ file, hash }: Pick<Config, 'file' | 'hash'>, lastLoad?: LastLoad) {
  return { version, node: process.version, startedAt, config: { file, hash }, ...(lastLoad && { lastLoad }) }
}

export default fp<Config>(
  async (fastify, config) => {
    if (!fastify.hasDecorator('meter')) return
    const { host } = fastify
    // One that has been replaced serves its last requests.
    const inUse = () => host?.config() ?? config
    const ends = [
      fastify.meter.gauge({
        name: 'jingwei_build_info',
        help: 'Always 1: the version of Jingwei, and of Node.js',
        labelNames: ['version', 'node'],
        collect: (set) => set({ version, node: process.version }, 1)
      }),
      fastify.meter.gauge({
        name: 'jingwei_config_info',
        help: 'Always 1: the first 16 hexadecimal digits of the SHA-256 of the configuration file',
        labelNames: ['hash'],
        collect: (set) => set({ hash: inUse().hash }, 1)
      }),
      fastify.meter.gauge({
        name: 'jingwei_config_last_reload_success',
        help: '1 if the configuration could be loaded the last time, else 0',
        collect: (set) => set({}, host?.lastLoad().success === false ? 0 : 1)
      }),
      fastify.meter.gauge({
        name: 'jingwei_config_last_reload_timestamp_seconds',
        help: 'Time when a configuration was last loaded successfully',
        collect: (set) => set({}, (host?.lastLoad().succeededAt.getTime() ?? Date.parse(startedAt)) / 1000)
      })
    ]
    fastify.addHook('onClose', async () => {
      for (const end of ends) end()
    })
  },
  { name: 'jingwei-about', fastify: '5.x' }
)
