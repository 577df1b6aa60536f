/** Options that the methods of authentication by signatures share. */
import createError from '@fastify/error'
import { Size } from '../../../config/schema/kit.ts'
import { refusedAs } from './refused.ts'

const SignatureInvalid = createError('JW_SIGNATURE_INVALID', 'The signature of the request is not valid', 401)

export const signatureRefused = <Reason extends string>() => refusedAs<Reason>(SignatureInvalid)

export const MaxBodySize = Size(
  'Largest body that is compared with its digest. It is kept in memory until then. Larger ones get 413.',
  { default: '1mb' }
)

export const ReplaySize = Size(
  'Memory for them, in each process: about 43,000 per MB. One consumer uses at most half of it, and with others at most as much as is left; more requests of this consumer get 429 with `Retry-After`. If it is full, requests get 503.',
  { default: '16mb' }
)
