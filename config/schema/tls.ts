/** Schema of the TLS settings of a listener: certificates, versions, ciphers, client certificates. */
import type { Static } from 'typebox'
import { Names, strict } from './kit.ts'
import Type from './type.ts'

const Certificate = Type.Object(
  {
    cert: Type.String({ description: 'PEM file with the certificate chain.' }),
    key: Type.String({ description: 'PEM file with the private key of `cert`.' })
  },
  strict
)

const clientCertificate = (description: string) =>
  Type.Object(
    {
      mode: Names(['require', 'request', 'none'], {
        default: 'require',
        description:
          'require: a handshake without a valid client certificate fails. request: the certificate is optional, but with an invalid one requests get 400. none: no certificate is requested.'
      }),
      ca: Type.Optional(
        Type.String({
          description:
            'PEM file with the authorities that sign client certificates. Default for a host: those of the listener.'
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
    cert: Type.Optional(Type.String({ description: 'PEM file with the certificate chain that is served by default.' })),
    key: Type.Optional(Type.String({ description: 'PEM file with the private key of `cert`.' })),
    ca: Type.Optional(
      Type.String({
        description:
          'PEM file with authorities; clients must present a certificate signed by one of them. Short for `clientCertificate: { ca: … }`.'
      })
    ),
    certificates: Type.Array(Certificate, {
      default: [],
      description:
        'Further certificates, each for the names in its subjectAltName. If several have a name, the one that expires last is used.'
    }),
    folders: Type.Array(Type.String(), {
      default: [],
      description:
        'Folders with further certificates; their subfolders are read, too, one level deep. Recognised pairs: X.crt, X.cer or X.pem with X.key, X.crt.key or X-key.pem; tls.crt with tls.key; fullchain.pem with privkey.pem; X.pem with both.'
    }),
    default: Type.Optional(
      Type.String({
        description:
          'Server name whose certificate is served to clients that send no server name (SNI) or an unknown one. Default: `cert`, else the first of `certificates`, else of `folders`.'
      })
    ),
    strict: Type.Boolean({
      default: false,
      description: 'true: handshakes without a server name (SNI), or with one that no certificate has, fail.'
    }),
    minVersion: Version('TLSv1.2', 'Oldest accepted TLS version.'),
    maxVersion: Version('TLSv1.3', 'Newest accepted TLS version.'),
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
        "Cipher suites by their OpenSSL names. The three of TLS 1.3 are always on, unless names that begin with TLS_ are listed. Default: Mozilla's intermediate configuration without DHE."
    }),
    clientCertificate: Type.Optional(
      clientCertificate(
        'Client certificates (mTLS) for all hosts that `hosts` does not name. Default: none is requested.'
      )
    ),
    hosts: Type.Array(
      Type.Object(
        {
          names: Type.Array(HostPattern, {
            minItems: 1,
            description: 'Host names, or wildcards such as `*.example.com`, as in `match.hosts`.'
          }),
          clientCertificate: clientCertificate('Client certificates (mTLS) for these hosts.')
        },
        strict
      ),
      {
        default: [],
        description:
          'Hosts with their own rules for client certificates. A request for a host is served only on a connection whose handshake followed the rules of that host; others get 421. A name that no certificate and no route has is a warning; with `strict`, a name without a certificate is a fault.'
      }
    )
  },
  strict
)

export type TlsOptions = Static<typeof Tls>
export type ClientCertificateOptions = Static<ReturnType<typeof clientCertificate>>
