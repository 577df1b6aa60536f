import type { Static } from 'typebox'
import { Names, orOff, strict, Text } from '../../../../config/schema/kit.ts'
import Type from '../../../../config/schema/type.ts'
import { tokenPattern } from '../../../http-syntax.ts'

const CookieName = Type.String({ pattern: `^${tokenPattern}$`, expected: 'the name of a cookie' })
const List = (description: string) => Type.Optional(Type.Array(CookieName, { minItems: 1, description }))
const Values = (description: string) =>
  Type.Optional(Type.Record(Type.String(), Text, { minProperties: 1, description }))

const Request = Type.Object(
  {
    only: List('Cookies that reach the service; others are removed.'),
    remove: List('Cookies to remove.'),
    rename: Type.Optional(
      Type.Record(Type.String(), CookieName, { minProperties: 1, description: 'Old name: new name.' })
    ),
    set: Values('Name: value. Replaces the cookie. Values are templates.'),
    add: Values('As `set`, but only if the cookie is absent.')
  },
  {
    ...strict,
    minProperties: 1,
    description: 'Changes cookies for the service. In this order: `only`, `remove`, `rename`, `set`, `add`.'
  }
)

const Attribute = (description: string) =>
  Type.Optional(orOff(Type.String({ pattern: '^[!-:<-~]+$', expected: 'printable ASCII without ;' }), { description }))

const Response = Type.Object(
  {
    remove: List('Cookies of the service that clients do not get.'),
    names: List('Cookies whose attributes change. Default: all of the service.'),
    domain: Attribute('`Domain`; `false` removes it, so that the cookie is for the requested host only.'),
    path: Attribute('`Path`; `false` removes it.'),
    sameSite: Type.Optional(Names(['Strict', 'Lax', 'None'], { description: '`SameSite`.' })),
    secure: Type.Optional(Type.Boolean({ description: 'Adds or removes `Secure`.' })),
    httpOnly: Type.Optional(Type.Boolean({ description: 'Adds or removes `HttpOnly`.' }))
  },
  { ...strict, minProperties: 1, description: 'Changes cookies that the service sets. Those of the gateway stay.' }
)

const Cookies = Type.Object(
  { request: Type.Optional(Request), response: Type.Optional(Response) },
  { ...strict, minProperties: 1, description: 'Changes cookies of requests to services, and of their responses.' }
)

export const CookiesOrOff = orOff(Cookies)

export type CookiesOptions = Static<typeof Cookies>
export type RequestCookies = Static<typeof Request>
export type ResponseCookies = Static<typeof Response>
