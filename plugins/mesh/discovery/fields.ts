/** Access to the fields of data that a registry sends. */

export type Fields = Readonly<Record<string, unknown>>

/** Returns the value if it is an object, else an object without fields. */
export const fields = (value: unknown): Fields => (typeof value === 'object' && value !== null ? (value as Fields) : {})
export const isText = (value: unknown): value is string => typeof value === 'string' && value !== ''
