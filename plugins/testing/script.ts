/** Scripts: the responses that a test gives to a service. */
import type { ReceivedRequest } from './received-request.ts'

/** A response of a scripted service. */
export interface ScriptedResponse {
  /** Default: 200. */
  readonly status?: number
  readonly headers?: Readonly<Record<string, string | number | readonly string[]>>
  /** Body, sent as JSON with its content type. */
  readonly json?: unknown
  /** Body as text, bytes or a stream of these, such as a generator or a `Readable`. */
  readonly body?: string | Uint8Array | Iterable<string | Uint8Array> | AsyncIterable<string | Uint8Array>
  /** Time on the gateway's clock before the response begins, in milliseconds; `Infinity`: it never does. */
  readonly delay?: number
  /**
   * `refused`: no connection is made. `reset`: the connection is closed in place of a response or, with a `body`, after
   * that. A function cannot return `refused`: it is called for a request, which comes after the connection.
   */
  readonly connection?: 'refused' | 'reset'
}

/** Returns the response to a request. */
export type Responder = (request: ReceivedRequest) => ScriptedResponse | Promise<ScriptedResponse>

/** One response for all requests, a function, or a list of these in the order of the requests, whose last one repeats. */
export type Script = ScriptedResponse | Responder | readonly (ScriptedResponse | Responder)[]

/** One of several instances of a service. */
export interface ScriptedInstance {
  readonly response: Script
  /** Relative share of the requests. Default: 1. */
  readonly weight?: number
  /** As in Consul, for subsets. */
  readonly tags?: readonly string[]
  readonly meta?: Readonly<Record<string, string>>
}

/** A service: its script, or those of its instances. */
export type ScriptedService = Script | { readonly instances: readonly ScriptedInstance[] }

const responseKeys = ['status', 'headers', 'json', 'body', 'delay', 'connection']
const instanceKeys = ['response', 'weight', 'tags', 'meta']

/** Returns the instances of a scripted service. Throws a `TypeError` that names the service and what is wrong. */
export function instancesOf(name: string, service: ScriptedService): readonly ScriptedInstance[] {
  if (typeof service !== 'object' || service === null || !('instances' in service)) {
    return [{ response: checkScript(`services.${name}`, service) }]
  }
  const { instances } = service
  if (!Array.isArray(instances)) throw new TypeError(`services.${name}.instances: expected a list`)
  return instances.map((instance: ScriptedInstance, index) => {
    const at = `services.${name}.instances[${index}]`
    if (typeof instance !== 'object' || instance === null || !('response' in instance)) {
      throw new TypeError(`${at}: expected { response } with the script of the instance`)
    }
    refuseUnknown(at, instance, instanceKeys)
    checkScript(`${at}.response`, instance.response)
    return instance
  })
}

/** Returns the script. Throws a `TypeError` if it is not valid. */
export function checkScript<T extends Script>(at: string, script: T): T {
  if (!Array.isArray(script)) {
    checkStep(at, script)
    return script
  }
  if (script.length === 0) throw new TypeError(`${at}: expected at least one response in the list`)
  for (const [index, each] of script.entries()) checkStep(`${at}[${index}]`, each)
  return script
}

function checkStep(at: string, step: unknown): void {
  if (typeof step !== 'function') checkResponse(at, step)
}

/** Throws a `TypeError` if the value is not a scripted response: a misspelt key would pass for a status of 200. */
export function checkResponse(at: string, response: unknown): asserts response is ScriptedResponse {
  if (typeof response !== 'object' || response === null || Array.isArray(response)) {
    const found = response === null ? 'null' : Array.isArray(response) ? 'a list' : typeof response
    throw new TypeError(`${at}: expected a response such as { json: [] }, found ${found}`)
  }
  refuseUnknown(at, response, responseKeys)
  const { status = 200, json, body, delay = 0, connection } = response as ScriptedResponse
  if (!Number.isInteger(status) || status < 200 || status > 599) {
    throw new TypeError(`${at}.status: expected a status from 200 to 599, found ${status}`)
  }
  if (json !== undefined && body !== undefined)
    throw new TypeError(`${at}: a response has either json or body, not both`)
  if (!(delay >= 0)) throw new TypeError(`${at}.delay: expected milliseconds, found ${delay}`)
  if (connection !== undefined && connection !== 'refused' && connection !== 'reset') {
    throw new TypeError(`${at}.connection: expected refused or reset, found ${JSON.stringify(connection)}`)
  }
}

function refuseUnknown(at: string, given: object, known: readonly string[]): void {
  const unknown = Object.keys(given).find((key) => !known.includes(key))
  if (unknown !== undefined) throw new TypeError(`${at}: unknown key "${unknown}"; there are ${known.join(', ')}`)
}

/** The script of one instance, and the place of its next response. */
export class ScriptedResponses {
  #script: readonly (ScriptedResponse | Responder)[]
  #next = 0

  constructor(script: Script) {
    this.#script = listOf(script)
  }

  /** Replaces the script. */
  replace(script: Script): void {
    this.#script = listOf(script)
    this.#next = 0
  }

  /** True if the next connection is refused. */
  get refuses(): boolean {
    const next = this.#script[this.#next]!
    return typeof next === 'object' && next.connection === 'refused'
  }

  /** Returns the next response. The last one of a list repeats. */
  take(): ScriptedResponse | Responder {
    const response = this.#script[this.#next]!
    if (this.#next < this.#script.length - 1) this.#next++
    return response
  }
}

function listOf(script: Script): readonly (ScriptedResponse | Responder)[] {
  return (Array.isArray(script) ? script : [script]) as readonly (ScriptedResponse | Responder)[]
}
