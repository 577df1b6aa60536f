/** The seam's types, held on both sides: a key that one side spells in another way does not compile. */
import type { IncomingMessage } from 'node:http'
import type { FastifyRequest } from 'fastify'
import t from 'tap'
import type { Dispatcher } from 'undici'
import type { RawResponse } from '../plugins/edge/bridge/raw-response.ts'
import { Body } from '../plugins/edge/protocol/request-body.ts'
import { errorTable } from '../plugins/error-table.ts'
import type { Call } from '../plugins/mesh/core/call.ts'
import type { ConnectionErrorCode, MeshErrorCode } from '../plugins/mesh/core/errors.ts'
import { isBorrowing, isTransferring } from '../plugins/mesh/http/borrowing.ts'
import type {
  BorrowingHandler, Caller, CallerOptions, CallRecord, SeamErrorCode, TransferringBody
} from '../plugins/seam.ts' // biome-ignore format: a list

type Is<A, B> = A extends B ? true : false

t.test('both halves pass values of the types of the seam', async (t) => {
  const held: [
    Is<RawResponse, BorrowingHandler>,
    Is<Body, TransferringBody>,
    Is<FastifyRequest, Caller>,
    Is<Call, CallRecord>,
    Is<MeshErrorCode | ConnectionErrorCode, SeamErrorCode>,
    Is<SeamErrorCode, MeshErrorCode | ConnectionErrorCode>,
    Is<SeamErrorCode, keyof typeof errorTable>,
    Is<keyof CallerOptions, keyof Dispatcher.DispatchOptions>
  ] = [true, true, true, true, true, true, true, true]
  t.ok(held.every(Boolean))
  t.ok(isTransferring(new Body({} as IncomingMessage)))
})

t.test('misspelt fields are type errors', async (t) => {
  // @ts-expect-error: it is `transfers`
  const body: TransferringBody = { transfer: true }
  t.notOk(isTransferring(body))
  // @ts-expect-error: it is `borrows`
  const handler: BorrowingHandler = { borrow() {} }
  t.notOk(isBorrowing(handler))
  // @ts-expect-error: it is `caller`
  const options: CallerOptions = { callers: { ip: '127.0.0.1', consumer: null, trusted: false } }
  // @ts-expect-error: it is `trailers`
  const more = { path: '/', method: 'GET', trailer: () => [] } satisfies Dispatcher.DispatchOptions
  t.notOk('caller' in options || 'trailers' in more)
  t.ok(Object.hasOwn(errorTable, 'JW_NO_INSTANCE' satisfies SeamErrorCode))
})
