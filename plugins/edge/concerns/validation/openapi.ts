/** Compiles an OpenAPI document, version 3.0 or 3.1, into the rules of its operations. */
import { pointer as below } from '../../../../config/faults.ts'
import type { Steps } from '../../../time-slices.ts'
import { formatOf } from '../../protocol/media-types.ts'
import { isObject } from '../../strict-json.ts'
import type { PlaceDraft } from './openapi-parameters.ts'
import { placeDraft } from './openapi-parameters.ts'
import type { ResponseDrafts } from './openapi-responses.ts'
import { responseDrafts, responseRules } from './openapi-responses.ts'
import type { BodyRule, ContentRule, Operation, PlaceRule } from './operation.ts'
import { PathTree } from './path-tree.ts'
import type { ResponseRules } from './responses.ts'
import { Schemas } from './schemas.ts'
import { basePathOf } from './server-paths.ts'
import type { Shape } from './shapes.ts'
import { shapeOf } from './shapes.ts'
import type { Place } from './sources.ts'
import { SchemaFault, Sources, valueAt } from './sources.ts'
import type { Dialect } from './validators.ts'
import type { In } from './values.ts'

export interface DocumentOptions {
  readonly openapi: string
  readonly basePath?: string | undefined
  readonly unknownQuery: 'pass' | 'refuse'
  readonly unread: 'pass' | 'refuse'
  /** True if responses are checked as well. */
  readonly hasResponses: boolean
}

export interface Document {
  readonly tree: PathTree<DocumentedOperation>
  /** Files of which it consists. */
  readonly files: readonly string[]
  readonly count: number
}

export interface DocumentedOperation extends Operation {
  /** `GET /orders/{id}`. */
  readonly name: string
  readonly responses: ResponseRules
}

const methods = ['get', 'put', 'post', 'delete', 'options', 'head', 'patch', 'trace'] as const
const places: readonly In[] = ['path', 'query', 'header', 'cookie']
const noShape: Shape = { types: new Set(), items: null, properties: new Map() }

/** Compiles a document. Faults are reported, and the rest is compiled. Throws an error for a file that cannot be read. */
export function* compileDocument(options: DocumentOptions, fault: (fault: SchemaFault) => void): Steps<Document> {
  const sources = new Sources()
  const root: Place = { source: sources.load(options.openapi), pointer: '' }
  const document = valueAt(root)
  const version = isObject(document) ? String(document.openapi) : ''
  const dialect: Dialect | null = /^3\.0\./.test(version)
    ? 'openapi-3.0'
    : /^3\.[12]\./.test(version)
      ? 'openapi-3.1'
      : null
  if (dialect === null) throw new Error(`${options.openapi}: expected "openapi: 3.0.x" or "openapi: 3.1.x"`)
  const compiler = new Compiler(sources, dialect, options, fault)
  yield* compiler.readPaths(root)
  yield* compiler.requests.copyAll()
  yield* compiler.requests.compileAll(true)
  yield* compiler.responses.copyAll()
  yield* compiler.responses.compileAll(false)
  const tree = yield* compiler.assemble()
  return { tree, files: sources.files, count: compiler.count }
}

type Mapping = Readonly<Record<string, unknown>>

/** An operation whose schemas are not compiled yet. */
interface Draft {
  readonly name: string
  readonly method: string
  readonly templates: readonly string[]
  readonly places: readonly PlaceDraft[]
  readonly body: { readonly required: boolean; readonly content: readonly (readonly [string, Content | null])[] } | null
  readonly responses: ResponseDrafts
}

interface Content {
  readonly id: string
  readonly shape: Shape
}

class Compiler {
  readonly requests: Schemas
  readonly responses: Schemas
  readonly #sources: Sources
  readonly #options: DocumentOptions
  readonly #fault: (fault: SchemaFault) => void
  readonly #drafts: Draft[] = []

  constructor(sources: Sources, dialect: Dialect, options: DocumentOptions, fault: (fault: SchemaFault) => void) {
    this.#sources = sources
    this.#options = options
    this.#fault = fault
    this.requests = new Schemas(sources, dialect, 'request', fault)
    this.responses = new Schemas(sources, dialect, 'response', fault)
  }

  get count(): number {
    return this.#drafts.length
  }

  *readPaths(root: Place): Steps<void> {
    const at = inner(root, 'paths')
    const paths = valueAt(at)
    if (!isObject(paths)) throw new SchemaFault(at, 'expected a mapping of paths')
    for (const path of Object.keys(paths)) {
      if (path.startsWith('x-')) continue
      yield
      this.#guarded(() => this.#readPath(path, inner(at, path), root))
    }
  }

  #guarded(work: () => void): void {
    try {
      work()
    } catch (error) {
      if (!(error instanceof SchemaFault)) throw error
      this.#fault(error)
    }
  }

  #readPath(path: string, written: Place, root: Place): void {
    if (!path.startsWith('/')) throw new SchemaFault(written, 'a path must begin with "/"')
    const [place, item] = this.#mapping(written)
    const common = this.#parameters(item, place)
    for (const method of methods) {
      if (!(method in item)) continue
      this.#guarded(() => {
        const [at, operation] = this.#mapping(inner(place, method))
        const bases = this.#bases([operation, item, valueAt(root) as Mapping])
        const own = this.#parameters(operation, at)
        const parameters = new Map([...common, ...own])
        const body = 'requestBody' in operation ? this.#body(inner(at, 'requestBody')) : null
        const name = method.toUpperCase()
        const refusesOthers = this.#options.unknownQuery === 'refuse'
        const context = { schemas: this.requests, sources: this.#sources, refusesOthers }
        this.#drafts.push({
          name: `${name} ${path}`,
          method: name,
          templates: bases.map((base) => base + path),
          places: places.flatMap((where) => placeDraft(where, parameters, context)),
          body,
          responses: this.#options.hasResponses
            ? responseDrafts(inner(at, 'responses'), this.responses, (each) => this.#mapping(each))
            : new Map()
        })
      })
    }
  }

  /** Returns a mapping and its place, after references. */
  #mapping(place: Place): [Place, Mapping] {
    let at = place
    let value = valueAt(at)
    for (let hops = 0; isObject(value) && '$ref' in value; hops++) {
      if (hops > 16) throw new SchemaFault(place, 'refers to itself')
      at = this.#sources.resolve(value.$ref, at)
      value = valueAt(at)
    }
    if (!isObject(value)) throw new SchemaFault(at, 'expected a mapping')
    return [at, value]
  }

  /** Returns the base paths of the innermost `servers`. */
  #bases(holders: readonly Mapping[]): string[] {
    const { basePath } = this.#options
    if (basePath !== undefined) return [basePath === '/' ? '' : basePath]
    const servers = holders.map((each) => each.servers).find((each) => Array.isArray(each) && each.length > 0)
    if (!Array.isArray(servers)) return ['']
    return [...new Set(servers.filter(isObject).map(basePathOf))]
  }

  #parameters(holder: Mapping, place: Place): Map<string, Place> {
    const list = holder.parameters ?? []
    const at = inner(place, 'parameters')
    if (!Array.isArray(list)) throw new SchemaFault(at, 'expected a list of parameters')
    return new Map(
      list.map((_, index) => {
        const [found, parameter] = this.#mapping(inner(at, index))
        const { in: where, name } = parameter
        if (typeof name !== 'string' || !places.includes(where as In)) {
          throw new SchemaFault(found, 'expected "name", and "in: path", "query", "header" or "cookie"')
        }
        return [`${where}:${where === 'header' ? name.toLowerCase() : name}`, found]
      })
    )
  }

  #body(written: Place): Draft['body'] {
    const [place, body] = this.#mapping(written)
    if (!isObject(body.content)) throw new SchemaFault(inner(place, 'content'), 'expected a mapping of media types')
    const content = Object.keys(body.content).flatMap((range): (readonly [string, Content | null])[] => {
      const at = inner(place, 'content', range, 'schema')
      const isRead = formatOf(range.split(';')[0]!.trim().toLowerCase()) !== null || range.includes('*')
      if (!isRead && this.#options.unread === 'refuse') return []
      if (valueAt(at) === undefined || !isRead) return [[range, null]]
      const isForm = formatOf(range.toLowerCase()) !== 'json'
      return [[range, { id: this.requests.add(at), shape: isForm ? shapeOf(this.#sources, at) : noShape }]]
    })
    return { required: body.required === true, content }
  }

  *assemble(): Steps<PathTree<DocumentedOperation>> {
    const tree = new PathTree<DocumentedOperation>()
    const rules = new Map<string, ContentRule>()
    const names = this.requests.names
    for (const { name, method, templates, places: drafts, body, responses } of this.#drafts) {
      yield
      const compiled: PlaceRule[] = []
      for (const { id, parameters, in: where } of drafts) {
        compiled.push({ in: where, parameters, validate: this.requests.validator(id, true) })
      }
      const content: (readonly [string, ContentRule | null])[] = []
      for (const [range, draft] of body?.content ?? []) {
        if (draft === null) {
          content.push([range, null])
          continue
        }
        let rule = rules.get(draft.id)
        if (rule === undefined) {
          const validate = this.requests.validator(draft.id, false)
          rule = { validate, validateAll: this.requests.validator(draft.id, true), shape: draft.shape }
          rules.set(draft.id, rule)
        }
        content.push([range, rule])
      }
      const ofBody: BodyRule | null = body === null ? null : { isRequired: () => body.required, content }
      const ofResponses = { rules: responseRules(responses, this.responses), names: this.responses.names }
      const operation = { name, places: compiled, body: ofBody, names, responses: ofResponses }
      for (const template of templates) this.#add(tree, template, method, operation)
    }
    return tree
  }

  #add(tree: PathTree<DocumentedOperation>, template: string, method: string, operation: DocumentedOperation): void {
    try {
      tree.add(template, method, operation)
    } catch (error) {
      const source = this.#sources.load(this.#options.openapi)
      this.#fault(new SchemaFault({ source, pointer: '/paths' }, (error as Error).message))
    }
  }
}

const inner = (place: Place, ...segments: (string | number)[]): Place => ({
  ...place,
  pointer: below(place.pointer, ...segments)
})
