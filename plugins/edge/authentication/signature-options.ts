/** Options that the methods of authentication by signatures share. */
import createError from '@fastify/error'
import { Size } from '../../../config/schema/kit.ts'

export const SignatureInvalid = createError('JW_SIGNATURE_INVALID', 'The signature of the request is not valid', 401)

export const MaxBodySize = Size(
  'Largest body that is compared with its digest. It is kept in memory until then. Larger ones get 413.',
  { default: '1mb' }
)

export const ReplaySize = Size(
  'Memory for them, in each process: about 9000 per MB. If it is full, requests get 503 with `Retry-After`.',
  { default: '16mb' }
)
