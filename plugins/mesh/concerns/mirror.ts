import type { IncomingHttpHeaders } from 'node:http'
import type { Static } from 'typebox'
import type { Key } from '../../../config/concern.ts'
import { everyLevel } from '../../../config/concern.ts'
import { Count, orOff, Share, SizeOrZero, strict, Text } from '../../../config/schema/kit.ts'
import Type from '../../../config/schema/type.ts'
import { ChunkList } from '../../chunk-list.ts'
import type { MeshConcern } from '../concern.ts'
import { checkOtherService } from '../core/check-service.ts'
import { ForwardingHandler } from '../core/handlers/forwarding-handler.ts'
import type { Layer } from '../core/layer.ts'
import { counterOf } from '../core/metrics.ts'
import { lowerCasePairs } from '../core/request-fields.ts'
import { StateKey } from '../core/service-state.ts'
import type { Dispatch, DispatchController, DispatchHandler, DispatchOptions } from '../core/types.ts'

declare module 'undici' {
  namespace Dispatcher {
    interface DispatchOptions {
      /**
       * True for a mirrored call, which is not mirrored again, so that two services which mirror each other make no
       * loop.
       */
      isCopy?: true
    }
  }
}

const shadows = new StateKey<Shadow>('mirror to')

/**
 * Sends a copy of calls to a shadow service. The call does not wait for the copy and ignores its result. A streamed
 * request body is copied once it has been sent to the service, if it is at most `maxBody`. The copy's `Host` ends with
 * `-shadow`, as in Envoy, so that the shadow's logs can tell copies from other calls.
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
      return dispatch(opts, new BodyBuffer(handler, options.maxBody, whole, send, tooLarge))
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
      // A failure of the copy must not affect the call.
      done(false)
    }
  }
}

/** Returns the headers (name, value, name, value) with `-shadow` appended to the host name of `Host`. */
function shadowHost(opts: DispatchOptions): string[] {
  const pairs = lowerCasePairs(opts)
  return pairs.map((text, i) => (i % 2 === 1 && pairs[i - 1] === 'host' ? text.replace(/(:\d+)?$/, '-shadow$1') : text))
}

/** Reads a response to its end and discards it. */
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

/** Buffers a streamed body while it is sent to the service, and passes it on when the service has responded. */
class BodyBuffer extends ForwardingHandler {
  readonly #most: number
  readonly #whole: () => boolean
  readonly #send: (body: Buffer) => void
  readonly #tooLarge: () => void
  readonly #list = new ChunkList()
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

  // Called once per attempt, each of which sends the body from the beginning.
  override onRequestStart(controller: DispatchController, context: unknown): void {
    this.#list.clear()
    this.#size = 0
    this.next.onRequestStart?.(controller, context)
  }

  override onBodySent(chunk: Buffer): void {
    // A string body arrives as a string, against the types.
    this.#size += Buffer.byteLength(chunk)
    // Copy, because the chunk's memory may be freed.
    if (this.#size <= this.#most) this.#list.add(Buffer.from(chunk))
    else this.#list.clear()
    this.next.onBodySent?.(chunk)
  }

  override onResponseEnd(controller: DispatchController, trailers: IncomingHttpHeaders): void {
    if (this.#size > this.#most) this.#tooLarge()
    // After an early response the body may be incomplete; then it is not mirrored.
    else if (this.#whole()) this.#send(this.#list.join())
    this.next.onResponseEnd?.(controller, trailers)
  }
}

const Mirror = Type.Object(
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

const mirrorKey: Key = {
  name: 'mirror',
  aliases: { 'proxyMirror|mirroring': 'write mirror under "mesh"' },
  options: orOff(Mirror, { description: 'Sends a copy of calls to another service and drops its responses.' }),
  levels: everyLevel,
  otherServices: ({ service }: MirrorOptions) => [service],
  check({ service: name }: MirrorOptions, at, checked, { service }) {
    if (checked.report.sound(at)) checkOtherService(`${at}/service`, name, service, checked)
  }
}

export default { name: 'mirror', keys: [mirrorKey], layer: mirror } satisfies MeshConcern
