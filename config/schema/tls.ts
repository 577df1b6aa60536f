/** TLS of a listener: certificates by server name, versions and ciphers, client certificates. */
import type { Static } from 'typebox'
import Type from 'typebox'
import { Names, strict } from './kit.ts'

const Certificate = Type.Object(
  {
    cert: Type.String({ description: 'PEM file with the certificate chain.' }),
    key: Type.String({ description: 'PEM file with its private key.' })
  },
  strict
)

const clientCertificate = (description: string) =>
  Type.Object(
    {
      mode: Names(['require', 'request', 'none'], {
        default: 'require',
        description:
          'require: without a valid one the handshake fails. request: one that is shown must be valid, or requests get 400. none: none is asked for.'
      }),
      ca: Type.Optional(
        Type.String({
          description: 'PEM file with the authorities that sign them; for a host, default: those of the listener.'
        })
      )
    },
    { ...strict, description }
  )

const HostPattern = Type.String({ minLength: 1, maxLength: 255 })

const Version = (value: 'TLSv1.2' | 'TLSv1.3', description: string) =>
  Names(['TLSv1.2', 'TLSv1.3'], { default: value, description })

export const Tls = Type.Object(
  {
    cert: Type.Optional(Type.String({ description: 'PEM file with the certificate chain that is shown by default.' })),
    key: Type.Optional(Type.String({ description: 'PEM file with its private key.' })),
    ca: Type.Optional(
      Type.String({
        description: 'PEM file; clients must show a certificate signed by it. Short for `clientCertificate: { ca: … }`.'
      })
    ),
    certificates: Type.Array(Certificate, {
      default: [],
      description:
        'More certificates. Each serves the names in it (its subjectAltName); of several for one name, the one that expires last.'
    }),
    folders: Type.Array(Type.String(), {
      default: [],
      description:
        'Folders with more of them, also in folders one level below: X.crt, X.cer or X.pem with X.key, X.crt.key or X-key.pem; tls.crt with tls.key; fullchain.pem with privkey.pem; X.pem that holds both.'
    }),
    default: Type.Optional(
      Type.String({
        description:
          'Server name whose certificate is shown to clients that send none, or one that no certificate has. Unset: `cert`, else the first of `certificates`, else of `folders`.'
      })
    ),
    strict: Type.Boolean({
      default: false,
      description: 'Refuse such clients: their handshake fails.'
    }),
    minVersion: Version('TLSv1.2', 'Oldest version spoken.'),
    maxVersion: Version('TLSv1.3', 'Newest version spoken.'),
    ciphers: Type.Array(Type.String(), {
      minItems: 1,
      default: [
        'ECDHE-ECDSA-AES128-GCM-SHA256',
        'ECDHE-RSA-AES128-GCM-SHA256',
        'ECDHE-ECDSA-AES256-GCM-SHA384',
        'ECDHE-RSA-AES256-GCM-SHA384',
        'ECDHE-ECDSA-CHACHA20-POLY1305',
        'ECDHE-RSA-CHACHA20-POLY1305'
      ],
      description:
        "Cipher suites in OpenSSL's words. TLS 1.3 has its own three, unless some that begin with TLS_ are listed. Default: Mozilla's intermediate configuration, without DHE."
    }),
    clientCertificate: Type.Optional(
      clientCertificate('Certificates of clients, of all hosts that `hosts` does not name. Unset: none is asked for.')
    ),
    hosts: Type.Array(
      Type.Object(
        {
          names: Type.Array(HostPattern, {
            minItems: 1,
            description: 'Hosts, or `*.example.com` for all hosts below one, as in `match.hosts`.'
          }),
          clientCertificate: clientCertificate('Certificates of clients that ask for these hosts.')
        },
        strict
      ),
      {
        default: [],
        description:
          'Hosts with other rules for client certificates. A request for a host is only served on a connection that was made under its rules; others get 421. A name that no certificate and no route has is a warning; with `strict`, one without a certificate is a fault.'
      }
    )
  },
  strict
)

export type TlsOptions = Static<typeof Tls>
export type ClientCertificateOptions = Static<ReturnType<typeof clientCertificate>>
