/**
 * Priorities of consumers (`consumers[].edge.shedPriority`). The decision about a request that the consumer's priority could
 * save, or doom, waits until the consumer is known.
 */
import type { FastifyInstance, FastifyRequest, RouteOptions } from 'fastify'
import type { Config } from '../../../../config/schema.ts'
import type { EdgeRoute } from '../../attach.ts'
import { edgeRouteOf } from '../../attach.ts'
import type { AnyHook } from '../../consumers/hook-chain.ts'
import { attachChained } from '../../consumers/hook-chain.ts'
import { mayKnowConsumers } from '../../consumers/identified.ts'
import { areOpen, mayOverride } from '../../consumers/overrides.ts'
import type { Priority } from './options.ts'
import { priorities } from './options.ts'

/** The lowest and the highest priority that a request may have. */
export interface PriorityRange {
  readonly lowest: Priority
  readonly highest: Priority
}

type Hook = (request: FastifyRequest, done: (error?: Error) => void) => void

export class Priorities {
  readonly #fastify: FastifyInstance
  readonly #config: Config
  /** Routes on which the consumer may have a priority. */
  readonly #routes = new Set<EdgeRoute>()

  constructor(fastify: FastifyInstance, config: Config) {
    this.#fastify = fastify
    this.#config = config
  }

  /** Adds a hook to the routes on which the consumer may have a priority. It runs once the consumer is known. */
  onceKnown(hook: Hook): void {
    if (!mayOverride(this.#config, 'shedPriority') || !this.#fastify.hasDecorator('edgeOrder')) return
    const preParsing: AnyHook = (request: FastifyRequest, _reply: unknown, _payload: unknown, done: () => void) =>
      hook(request, done)
    const mayWait = areOpen(this.#config)
    this.#fastify.addHook('onRoute', (route: RouteOptions) => {
      const shown = edgeRouteOf(route.config)
      if (shown === undefined || !mayKnowConsumers(this.#fastify, this.#config, route.config!)) return
      this.#routes.add(shown)
      attachChained(route, 'preParsing', { key: 'shedPriority', usual: preParsing, hookFor: () => preParsing }, mayWait)
    })
  }

  /** Returns the priority of a request, whose consumer is known. */
  of(request: FastifyRequest): Priority {
    return request.consumer?.edge.shedPriority ?? usual(edgeRouteOf(request.routeOptions.config))
  }

  /** Returns the priorities that a request may have before the consumer is known. */
  rangeOn(route: EdgeRoute | undefined): PriorityRange {
    const own = usual(route)
    if (route === undefined || !this.#routes.has(route)) return { lowest: own, highest: own }
    const ofPlugins = this.#config.plugins.some(({ provides }) => provides?.includes('consumer')) ? priorities : []
    const all = [own, ...(this.#fastify.consumers.optionsOf('shedPriority') as Priority[]), ...ofPlugins]
    const sorted = priorities.filter((each) => all.includes(each))
    return { lowest: sorted[0]!, highest: sorted.at(-1)! }
  }
}

const usual = (route: EdgeRoute | undefined): Priority => route?.edge.shedPriority ?? 'normal'
