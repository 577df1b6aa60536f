/** Numbers that are kept as they are written, by functions that TypeScript does not know yet. */
const { rawJSON, isRawJSON } = JSON as unknown as {
  rawJSON: (text: string) => object
  isRawJSON: (value: unknown) => value is { readonly rawJSON: string }
}

/** Returns a number that `JSON.stringify` writes as it is. */
export const rawNumber = rawJSON

/** Returns the text of a number that is kept as it is written; undefined for other values. */
export const textOfNumber = (value: unknown): string | undefined => (isRawJSON(value) ? value.rawJSON : undefined)
