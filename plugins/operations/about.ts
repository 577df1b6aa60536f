/** Version of the program and the configuration file in use, for the log, the admin port and metrics. */
import { readFileSync } from 'node:fs'
import { findPackageJSON } from 'node:module'
import { pathToFileURL } from 'node:url'
import fp from 'fastify-plugin'
import type { Config } from '../../config/schema.ts'
import { home } from '../home.ts'
import type { LastLoad } from './host.ts'

const manifest = readFileSync(findPackageJSON(pathToFileURL(`${home}/`))!, 'utf8')
export const { version } = JSON.parse(manifest) as { version: string }

const startedAt = new Date(performance.timeOrigin).toISOString()

/** Returns the facts that operators compare between the nodes of a cluster; for a running process, also the result of the last load. */
export function about({ file, hash }: Pick<Config, 'file' | 'hash'>, lastLoad?: LastLoad) {
  return { version, node: process.version, startedAt, config: { file, hash }, ...(lastLoad && { lastLoad }) }
}

export default fp<Config>(
  async (fastify, config) => {
    if (!fastify.hasDecorator('meter')) return
    const { host } = fastify
    // The gateway may have been replaced while it finishes its last requests, so `config` may be outdated.
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
        help: '1 if the last load of the configuration succeeded, else 0',
        collect: (set) => set({}, host?.lastLoad().success === false ? 0 : 1)
      }),
      fastify.meter.gauge({
        name: 'jingwei_config_last_reload_timestamp_seconds',
        help: 'Time of the last successful load of a configuration',
        collect: (set) => set({}, (host?.lastLoad().succeededAt.getTime() ?? Date.parse(startedAt)) / 1000)
      })
    ]
    fastify.addHook('onClose', async () => {
      for (const end of ends) end()
    })
  },
  { name: 'jingwei-about', fastify: '5.x' }
)
