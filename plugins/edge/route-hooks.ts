/** Hooks that concerns return for a route. */
import type { RouteOptions } from 'fastify'
import { didYouMean } from '../../config/nearest.ts'
import type { Phase } from './attach.ts'
import { attach } from './attach.ts'
import type { RefusingHook } from './concern-refusals.ts'

/** Hooks of one route, by their phase. */
export type RouteHooks = { readonly [P in Phase]?: RouteOptions[P] | undefined }

/** A hook of one phase. */
export type PhaseHook = readonly [phase: Phase, hook: RefusingHook]

/** Returns hooks as a list; those of one phase in their order. */
export const hooksOfPhases = (hooks: RouteHooks | null): PhaseHook[] =>
  Object.entries(hooks ?? {}).flatMap(([phase, each]) =>
    [each ?? []].flat().map((hook) => [phase as Phase, hook as RefusingHook] as const)
  )

export function attachAll(routeOptions: RouteOptions, hooks: readonly PhaseHook[]): void {
  for (const [phase, hook] of hooks) attach(routeOptions, phase, hook as never)
}

const phases = {
  onRequest: true,
  preParsing: true,
  preValidation: true,
  preHandler: true,
  preSerialization: true,
  onSend: true,
  onResponse: true,
  onError: true,
  onTimeout: true,
  onRequestAbort: true
} satisfies { readonly [P in Phase]: true }

/** Throws unless a concern's function for routes has returned hooks or null: a lost hook would let all requests pass. */
export function checkHooks(name: string, hooks: unknown): void {
  if (hooks === null) return
  const what = `the function for routes of concern ${name}`
  if (hooks instanceof Promise) throw new Error(`${what} returns a promise: it must not be async`)
  if (typeof hooks !== 'object') throw new Error(`${what} returns ${typeof hooks}: return hooks, or null for none`)
  for (const [phase, each] of Object.entries(hooks ?? {})) {
    if (!Object.hasOwn(phases, phase)) {
      throw new Error(`${what} returns an unknown hook "${phase}"${didYouMean(phase, Object.keys(phases))}`)
    }
    if ([each ?? []].flat().some((hook) => typeof hook !== 'function')) {
      throw new Error(`${what} returns a hook ${phase} that is not a function`)
    }
  }
}
