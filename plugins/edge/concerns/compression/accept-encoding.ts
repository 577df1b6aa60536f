/** Chooses the content coding of a response by `Accept-Encoding` (RFC 9110, 12.5.3). */
import { commaItems } from '../../../http-syntax.ts'

export const encodings = ['zstd', 'br', 'gzip'] as const
export type Encoding = (typeof encodings)[number]

export interface Choice {
  /** The coding to use; null for none. */
  readonly encoding: Encoding | null
  /** True if the client accepts no response without a coding. */
  readonly needsEncoding: boolean
}

const none: Choice = { encoding: null, needsEncoding: false }

/** Codings in one field. A longer list is no browser's. */
const mostItems = 32
const longestField = 500

/** Choices that are kept: there are about as many values of the field as there are kinds of clients. */
const mostKept = 200
const longestKept = 100

/** Weight: `0` to `1`, with up to three decimals. */
const weight = /^(.+?)\s*;\s*q\s*=\s*(0(?:\.\d{0,3})?|1(?:\.0{0,3})?)$/i

/** Returns the weights of the codings in a field, in lower case; null if the field is malformed or too long. */
function weightsOf(field: string): Map<string, number> | null {
  const items = field.length > longestField ? null : commaItems(field, mostItems)
  if (items === null) return null
  const weights = new Map<string, number>()
  for (const item of items) {
    const [, name = item, q = '1'] = weight.exec(item) ?? []
    if (name.includes(';')) return null
    const coding = name.toLowerCase()
    // Old name of gzip (RFC 9110, 8.4.1.3).
    weights.set(coding === 'x-gzip' ? 'gzip' : coding, Number(q))
  }
  return weights
}

/**
 * Chooses among codings, of which the first one wins between equal weights. A client that states no preference gets the
 * response as it is, as does one whose field cannot be read.
 */
export class Negotiator {
  readonly #offered: readonly Encoding[]
  readonly #kept = new Map<string, Choice>()

  constructor(offered: readonly Encoding[]) {
    this.#offered = offered
  }

  choose(field: string | undefined): Choice {
    if (field === undefined) return none
    const kept = this.#kept.get(field)
    if (kept !== undefined) return kept
    const choice = this.#choose(field)
    if (field.length <= longestKept) {
      if (this.#kept.size >= mostKept) this.#kept.clear()
      this.#kept.set(field, choice)
    }
    return choice
  }

  #choose(field: string): Choice {
    const weights = weightsOf(field)
    if (weights === null) return none
    const any = weights.get('*') ?? 0
    let encoding: Encoding | null = null
    let best = 0
    for (const offered of this.#offered) {
      const q = weights.get(offered) ?? any
      if (q > best) [encoding, best] = [offered, q]
    }
    // Without a weight of its own, no coding is acceptable, but not preferred to others.
    const identity = weights.get('identity')
    if (identity !== undefined && identity > best) return none
    return { encoding, needsEncoding: (identity ?? weights.get('*')) === 0 }
  }
}
