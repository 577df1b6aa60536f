/** Checks bodies that the configuration contains: of fixed responses, and of responses of concerns. */
import { checkFile } from './checked.ts'
import type { Checked } from './concern.ts'
import { readSmall } from './content.ts'
import { mediaTypeOf } from './media-types.ts'

interface Body {
  readonly file?: string | undefined
  readonly contentType?: string | undefined
}

/** Returns the key of the body: body, json or file; undefined if there is none. */
export const bodyKeyOf = (options: object): string | undefined =>
  ['body', 'json', 'file'].find((key) => Object.hasOwn(options, key))

/** Checks the body of a mapping. */
export function checkBody(at: string, options: Body, checked: Checked): void {
  const { report, absolute } = checked
  const { file, contentType } = options
  const [first, second] = ['body', 'json', 'file'].filter((key) => Object.hasOwn(options, key))
  if (second !== undefined) report.fault(`${at}/${second}`, `a response has either "${first}" or "${second}"`, 'key')
  if (first === undefined && contentType !== undefined)
    report.fault(`${at}/contentType`, 'no effect without a body: write "body", "json" or "file"', 'key')
  checkFile(`${at}/file`, file, checked)
  if (file === undefined || !report.sound(`${at}/file`)) return
  try {
    readSmall(absolute(file))
  } catch (error) {
    report.fault(`${at}/file`, `cannot be read: ${(error as Error).message}`)
  }
  if (contentType === undefined && mediaTypeOf(file) === null)
    report.fault(`${at}/file`, 'the name of the file does not tell its type: add contentType, such as text/html')
}
