/** Parses the text of a configuration file as YAML, in this thread or in a worker thread. */
import { mask } from './env.ts'
import type { Report } from './faults.ts'
import { parseYaml, SyntaxFault, YamlSource } from './yaml-source.ts'
import { parseInThread } from './yaml-thread.ts'

/** Length from which a text is parsed in a worker thread; here it would block the event loop for more than 15 ms. */
const LONG = 300_000

/** Parses the text of a file. */
export function parsed(text: string, report: Report): YamlSource {
  const masked = mask(text)
  try {
    return new YamlSource(masked, parseYaml(masked))
  } catch (error) {
    return refuse(error, report)
  }
}

/** Parses the text of a file without blocking the event loop: a long one in a worker thread, since the parser cannot pause. */
export async function parsedAsync(text: string, report: Report): Promise<YamlSource> {
  if (text.length < LONG) return parsed(text, report)
  const masked = mask(text)
  try {
    return new YamlSource(masked, await parseInThread(masked))
  } catch (error) {
    return refuse(error, report)
  }
}

function refuse(error: unknown, report: Report): never {
  if (error instanceof SyntaxFault) {
    report.add(error.position.line, error.position.column, '', error.message)
    report.throwIfAny()
  }
  throw error
}
