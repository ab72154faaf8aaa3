/**
 * Makes docker/seccomp-io-uring.json: the profile that an engine gives a container by default, and the three system calls
 * of io_uring. It is read from the configuration of a running container, as the engine resolved it, in the runtime
 * specification's own form: Docker, containerd and Kubernetes all take that.
 *
 * Usage: node scripts/seccomp-profile.mjs CONFIG_JSON > docker/seccomp-io-uring.json
 * (config.json of a container that runs, under /run/containerd/io.containerd.runtime.v2.task/moby/CONTAINER/)
 */

import { readFileSync } from 'node:fs'

const IO_URING = ['io_uring_enter', 'io_uring_register', 'io_uring_setup']

const [, , path] = process.argv
if (path === undefined) {
  console.error('usage: node scripts/seccomp-profile.mjs CONFIG_JSON')
  process.exitCode = 2
} else {
  const { seccomp } = JSON.parse(readFileSync(path, 'utf8')).linux
  const others = seccomp.syscalls
    .map((rule) => ({ ...rule, names: rule.names.filter((name) => !IO_URING.includes(name)) }))
    .filter(({ names }) => names.length > 0)
  const syscalls = [...others, { names: IO_URING, action: 'SCMP_ACT_ALLOW' }]
  console.log(JSON.stringify({ ...seccomp, syscalls }, null, 2))
}
