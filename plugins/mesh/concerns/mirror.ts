import type { IncomingHttpHeaders } from 'node:http'
import type { Static } from 'typebox'
import type { Key } from '../../../config/concern.ts'
import { everyLevel } from '../../../config/concern.ts'
import { Count, orOff, Share, SizeOrZero, strict, Text } from '../../../config/schema/kit.ts'
import Type from '../../../config/schema/type.ts'
import type { MeshConcern } from '../concern.ts'
import { checkOtherService } from '../core/check-service.ts'
import { ForwardingHandler } from '../core/handlers/forwarding-handler.ts'
import type { Layer } from '../core/layer.ts'
import { counterOf } from '../core/metrics.ts'
import { headerPairs } from '../core/request-fields.ts'
import { StateKey } from '../core/service-state.ts'
import type { Dispatch, DispatchController, DispatchHandler, DispatchOptions } from '../core/types.ts'

declare module 'undici' {
  namespace Dispatcher {
    interface DispatchOptions {
      /** It is a copy: of copies there are none, or two services that mirror each other would never rest. */
      isCopy?: true
    }
  }
}

const shadows = new StateKey<Shadow>('mirror to')

/**
 * Sends a copy of the calls to a shadow service. Nobody waits for it and nobody sees how it ends; a request body goes
 * along when it has gone to the service, if it was not larger than may be kept. The shadow's `Host` ends with
 * `-shadow`, as Envoy's does, so that its logs tell the copies.
 */
export const mirror: Layer = (service, policy, { meter, random, toService }) => {
  const options = policy.mirror
  // With a `mirror` for all services, the shadow service must not mirror to itself.
  if (!options || options.service === service.name) return null
  const copies = {
    name: 'jingwei_mesh_mirrored_total',
    help: 'Calls selected for mirroring to a shadow service, by outcome.'
  }
  const count = (outcome: string) => counterOf(meter, copies, { service: service.name, outcome })
  const [sent, dropped, tooLarge, failed] = [count('sent'), count('dropped'), count('too-large'), count('failed')]
  const shadow = service.state(shadows, () => new Shadow(), options.service)
  const { percent } = options
  const dispatchCopy = toService(options.service)

  return (dispatch) => (opts, handler) => {
    if (opts.upgrade || opts.isCopy || random() >= percent) return dispatch(opts, handler)
    if (shadow.active >= options.maxActive) {
      dropped()
      return dispatch(opts, handler)
    }
    const send = (body: Buffer | null) => {
      sent()
      shadow.send(dispatchCopy, opts, body, failed)
    }
    const { body } = opts
    if (body === null || body === undefined) send(null)
    else if (typeof body === 'string' || body instanceof Uint8Array) {
      if (Buffer.byteLength(body) > options.maxBody) tooLarge()
      else send(Buffer.from(body))
    } else {
      const whole = () => !('readableEnded' in body) || body.readableEnded
      return dispatch(opts, new BodyKeeper(handler, options.maxBody, whole, send, tooLarge))
    }
    return dispatch(opts, handler)
  }
}

/** Copies in flight to one shadow service. */
class Shadow {
  active = 0

  status() {
    return { active: this.active }
  }

  send(
    dispatch: Dispatch,
    { call: _ofTheOriginal, instance: _likewise, ...opts }: DispatchOptions,
    body: Buffer | null,
    failed: () => void
  ) {
    this.active++
    const headers = shadowHost(opts)
    const done = (ok: boolean) => {
      this.active--
      if (!ok) failed()
    }
    try {
      dispatch({ ...opts, body, headers, isCopy: true }, new Sink(done))
    } catch {
      // The original's options, which went through: whatever it is, it is nobody's concern.
      done(false)
    }
  }
}

/** Returns the headers, name, value, name, value, with the mark of a copy behind the name of their `Host`. */
function shadowHost(opts: DispatchOptions): string[] {
  const pairs = headerPairs(opts)
  return pairs.map((text, i) => (i % 2 === 1 && pairs[i - 1] === 'host' ? text.replace(/(:\d+)?$/, '-shadow$1') : text))
}

/** Reads an answer to its end for nobody. */
class Sink implements DispatchHandler {
  readonly #done: (ok: boolean) => void

  constructor(done: (ok: boolean) => void) {
    this.#done = done
  }

  onRequestStart(): void {}

  onResponseStart(): void {}

  onResponseData(): void {}

  onResponseEnd(): void {
    this.#done(true)
  }

  onResponseError(): void {
    this.#done(false)
  }
}

/** Keeps a streamed body as it goes out to the service, and hands it over when that has answered. */
class BodyKeeper extends ForwardingHandler {
  readonly #most: number
  readonly #whole: () => boolean
  readonly #send: (body: Buffer) => void
  readonly #tooLarge: () => void
  #chunks: Buffer[] = []
  #size = 0

  constructor(
    next: DispatchHandler,
    most: number,
    whole: () => boolean,
    send: (body: Buffer) => void,
    tooLarge: () => void
  ) {
    super(next)
    this.#most = most
    this.#whole = whole
    this.#send = send
    this.#tooLarge = tooLarge
  }

  // Once an attempt, each of which sends it from the beginning.
  override onRequestStart(controller: DispatchController, context: unknown): void {
    this.#chunks = []
    this.#size = 0
    this.next.onRequestStart?.(controller, context)
  }

  override onBodySent(chunk: Buffer): void {
    // The types leave out that text comes as text.
    this.#size += Buffer.byteLength(chunk)
    // A copy: the chunk's own memory may be freed.
    if (this.#size <= this.#most) this.#chunks.push(Buffer.from(chunk))
    else this.#chunks = []
    this.next.onBodySent?.(chunk)
  }

  override onResponseEnd(controller: DispatchController, trailers: IncomingHttpHeaders): void {
    if (this.#size > this.#most) this.#tooLarge()
    // An early answer: the service did not want the rest of it either.
    else if (this.#whole()) this.#send(Buffer.concat(this.#chunks))
    this.next.onResponseEnd?.(controller, trailers)
  }
}

export const Mirror = Type.Object(
  {
    service: Text,
    percent: Share('Share of the calls that is mirrored.', { default: '100%' }),
    maxBody: SizeOrZero('Largest request body; a request with a larger one is not mirrored.', { default: '64kb' }),
    maxActive: Count('Most mirrored calls in flight; more are dropped.', { default: 100 })
  },
  strict
)

export type MirrorOptions = Static<typeof Mirror>

declare module '../../../config/schema.ts' {
  interface MeshPolicy {
    mirror?: MirrorOptions | false
  }
}

export const mirrorKey: Key = {
  name: 'mirror',
  options: orOff(Mirror, { description: 'Sends a copy of calls to another service and drops its responses.' }),
  levels: everyLevel,
  otherServices: ({ service }: MirrorOptions) => [service],
  check({ service: name }: MirrorOptions, at, checked, { service }) {
    if (checked.report.sound(at)) checkOtherService(`${at}/service`, name, service, checked)
  }
}

export default { name: 'mirror', keys: [mirrorKey], layer: mirror } satisfies MeshConcern
