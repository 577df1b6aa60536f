/** `consumers[].jwt`: the tokens of a declared consumer. */
import type { Static } from 'typebox'
import type { Credentials } from '../../../../config/concern.ts'
import { idOf, subjectSchema } from '../../consumers/issuers.ts'

const Subject = {
  ...subjectSchema(
    'The `sub` of the consumer’s tokens, or the claim that `edge.jwt.consumer` names.',
    'Their `iss`. Necessary if the routes accept tokens of several issuers.'
  ),
  description: 'The tokens of the consumer.'
}

declare module '../../../../config/schema.ts' {
  interface ConsumerConfig {
    readonly jwt?: Static<typeof Subject>
  }
}

export const credentials: Credentials = { schema: Subject, ids: (value) => [[idOf(value), '/sub']] }
