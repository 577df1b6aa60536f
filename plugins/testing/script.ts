/** Scripts of services: what a test says a service responds. */
import type { Call } from './call.ts'

/** A response of a scripted service. */
export interface Answer {
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
   * that. A function cannot say `refused`: it is called for a request, which comes after the connection.
   */
  readonly connection?: 'refused' | 'reset'
}

/** Makes the response to a request. */
export type Answerer = (request: Call) => Answer | Promise<Answer>

/** One answer for all requests, a function, or a list of these in the order of the requests, whose last one repeats. */
export type Script = Answer | Answerer | readonly (Answer | Answerer)[]

/** One of several instances of a service. */
export interface ScriptedInstance {
  readonly answer: Script
  /** Relative share of the requests. Default: 1. */
  readonly weight?: number
  /** As in Consul, for subsets. */
  readonly tags?: readonly string[]
  readonly meta?: Readonly<Record<string, string>>
}

/** A service: its script, or those of its instances. */
export type ScriptedService = Script | { readonly instances: readonly ScriptedInstance[] }

const answerKeys = ['status', 'headers', 'json', 'body', 'delay', 'connection']
const instanceKeys = ['answer', 'weight', 'tags', 'meta']

/** Returns the instances of a scripted service. Throws a `TypeError` that names the service and what is wrong. */
export function instancesOf(name: string, service: ScriptedService): readonly ScriptedInstance[] {
  if (typeof service !== 'object' || service === null || !('instances' in service)) {
    return [{ answer: checkScript(`services.${name}`, service) }]
  }
  const { instances } = service
  if (!Array.isArray(instances)) throw new TypeError(`services.${name}.instances: expected a list`)
  return instances.map((instance: ScriptedInstance, index) => {
    const at = `services.${name}.instances[${index}]`
    if (typeof instance !== 'object' || instance === null || !('answer' in instance)) {
      throw new TypeError(`${at}: expected { answer } with the script of the instance`)
    }
    refuseUnknown(at, instance, instanceKeys)
    checkScript(`${at}.answer`, instance.answer)
    return instance
  })
}

/** Returns the script. Throws a `TypeError` for what is none. */
export function checkScript<T extends Script>(at: string, script: T): T {
  if (!Array.isArray(script)) {
    checkAnswer(at, script)
    return script
  }
  if (script.length === 0) throw new TypeError(`${at}: expected at least one answer in the list`)
  for (const [index, each] of script.entries()) checkAnswer(`${at}[${index}]`, each)
  return script
}

function checkAnswer(at: string, answer: unknown): void {
  if (typeof answer !== 'function') checkResponse(at, answer)
}

/** Throws a `TypeError` for what is no response: a misspelt key would pass for a status of 200. */
export function checkResponse(at: string, answer: unknown): asserts answer is Answer {
  if (typeof answer !== 'object' || answer === null || Array.isArray(answer)) {
    const found = answer === null ? 'null' : Array.isArray(answer) ? 'a list' : typeof answer
    throw new TypeError(`${at}: expected an answer such as { json: [] }, found ${found}`)
  }
  refuseUnknown(at, answer, answerKeys)
  const { status = 200, json, body, delay = 0, connection } = answer as Answer
  if (!Number.isInteger(status) || status < 200 || status > 599) {
    throw new TypeError(`${at}.status: expected a status from 200 to 599, found ${status}`)
  }
  if (json !== undefined && body !== undefined)
    throw new TypeError(`${at}: an answer has either json or body, not both`)
  if (!(delay >= 0)) throw new TypeError(`${at}.delay: expected milliseconds, found ${delay}`)
  if (connection !== undefined && connection !== 'refused' && connection !== 'reset') {
    throw new TypeError(`${at}.connection: expected refused or reset, found ${JSON.stringify(connection)}`)
  }
}

function refuseUnknown(at: string, given: object, known: readonly string[]): void {
  const unknown = Object.keys(given).find((key) => !known.includes(key))
  if (unknown !== undefined) throw new TypeError(`${at}: unknown key "${unknown}"; there are ${known.join(', ')}`)
}

/** The answers of one instance, in their order. */
export class Answers {
  #script: readonly (Answer | Answerer)[]
  #next = 0

  constructor(script: Script) {
    this.#script = listOf(script)
  }

  /** Replaces the answers. */
  replace(script: Script): void {
    this.#script = listOf(script)
    this.#next = 0
  }

  /** True if the next connection is refused. */
  get refuses(): boolean {
    const next = this.#script[this.#next]!
    return typeof next === 'object' && next.connection === 'refused'
  }

  /** Returns the next answer. The last one of a list repeats. */
  take(): Answer | Answerer {
    const answer = this.#script[this.#next]!
    if (this.#next < this.#script.length - 1) this.#next++
    return answer
  }
}

function listOf(script: Script): readonly (Answer | Answerer)[] {
  return (Array.isArray(script) ? script : [script]) as readonly (Answer | Answerer)[]
}
