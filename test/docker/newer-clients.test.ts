/**
 * Strangers of another day: the libnbd and qemu of a Debian newer than the one that the other tests run on, each in a
 * container on the daemon's network. They speak more of the protocol than we do, and must be content with what there is.
 */

import { expect, inject, test } from 'vitest'
import { startContainerHost } from '../support/container-host.ts'
import { scratchOfTest } from '../support/temporary-directory.ts'
import { engineOfRun, sharedFolder } from './host-pair.ts'

const SCRIPT = `
set -eu
uri=nbd://$1:10809/vda
nbdcopy --version; qemu-img --version | head -n 1
echo "size $(nbdinfo --size $uri)"
nbdinfo --json $uri >/dev/null
nbdinfo --list nbd://$1:10809/ | grep -c 'export="vda"'
head -c 16M /dev/urandom >/tmp/disk
nbdcopy --connections=1 --flush /tmp/disk $uri
nbdcopy $uri /tmp/back
cmp /tmp/disk /tmp/back && echo 'nbdcopy: same'
qemu-img compare -f raw -F raw $uri /tmp/disk
qemu-io -f raw -t none -c 'write -P 0x5a 1M 64k' -c 'write -z 2M 64k' -c 'discard 3M 64k' -c flush $uri
qemu-io -f raw -t none -c 'read -P 0x5a 1M 64k' -c 'read -P 0 2M 64k' $uri
qemu-img convert -f raw -O raw -W -n /tmp/disk $uri
nbdcopy $uri - | cmp - /tmp/disk && echo 'qemu-img: same'
`

test('libnbd and qemu of Debian 13 write, read, zero, discard and list', async () => {
  const scratch = scratchOfTest()
  const engine = engineOfRun()
  const { interlockd, clients } = inject('containerImages')
  const { folder } = sharedFolder(scratch)
  const network = await engine.network(scratch, 'storage')
  const host = await startContainerHost(scratch, engine, {
    image: interlockd,
    name: 'host',
    network,
    exports: [{ name: 'vda', path: '/srv/vda.raw' }],
    words: ['--volume', `${folder}:/srv`],
  })
  const outcome = await engine.run(
    ['run', '--rm', ...engine.label, '--network', network, clients, 'sh', '-c', SCRIPT, 'sh', host.name],
    { timeoutMs: 180_000 },
  )
  expect(`${outcome.stdout}${outcome.stderr}`).not.toMatch(/fail|error/iu)
  expect(outcome.status).toBe(0)
  const [, nbdcopyMinor] = /^nbdcopy 1\.(\d+)/mu.exec(outcome.stdout) ?? []
  const [, qemuMajor] = /^qemu-img version (\d+)/mu.exec(outcome.stdout) ?? []
  // Debian 12 has 1.14 and 7.2.
  expect(Number(nbdcopyMinor)).toBeGreaterThan(14)
  expect(Number(qemuMajor)).toBeGreaterThan(7)
  for (const line of ['size 16777216', 'nbdcopy: same', 'Images are identical.', 'qemu-img: same'])
    expect(outcome.stdout).toContain(line)
  expect(await host.status('vda')).toMatchObject({ state: 'open', indeterminate: [] })
})
