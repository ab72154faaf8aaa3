/**
 * Certificates for one test, by openssl: an authority, a server on the loopback, a client. They are good for a day.
 */

import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { requirePeer } from '../../scripts/peers.mjs'
import { runChecked } from './foreign-program.ts'
import type { Scratch } from './scratch.ts'

export interface Certified {
  readonly certificate: string
  readonly key: string
}

export interface Certificates {
  readonly ca: string
  readonly server: Certified
  readonly client: Certified
}

export async function makeCertificates(scratch: Scratch): Promise<Certificates> {
  const directory = scratch.directory('certificates')
  const at = (name: string): string => join(directory, name)
  const openssl = async (...commandArguments: string[]): Promise<void> => {
    await runChecked(requirePeer('openssl'), commandArguments)
  }
  const newKey = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes']
  await openssl(
    'req',
    '-x509',
    ...newKey,
    '-days',
    '1',
    '-subj',
    '/CN=authority',
    '-keyout',
    at('ca.key'),
    '-out',
    at('ca.pem'),
  )
  const issue = async (name: string, usage: string): Promise<Certified> => {
    const [key, request, certificate] = [at(`${name}.key`), at(`${name}.csr`), at(`${name}.pem`)]
    writeFileSync(at(`${name}.ext`), `subjectAltName = IP:127.0.0.1, DNS:localhost\nextendedKeyUsage = ${usage}\n`)
    await openssl('req', ...newKey, '-subj', '/', '-keyout', key, '-out', request)
    await openssl(
      ...['x509', '-req', '-days', '1', '-in', request, '-out', certificate, '-extfile', at(`${name}.ext`)],
      ...['-CA', at('ca.pem'), '-CAkey', at('ca.key'), '-CAcreateserial'],
    )
    return { certificate, key }
  }
  return {
    ca: at('ca.pem'),
    server: await issue('server', 'serverAuth, clientAuth'),
    client: await issue('client', 'clientAuth'),
  }
}
