/**
 * Linux's NBD client with a guardian: a small program in the virtual machine that negotiates, hands the socket to the
 * kernel over netlink, and, whenever the connection is lost, negotiates anew and hands over the next one. The kernel then
 * sends again what was not answered. Debian's nbd-client cannot do that.
 */

import type { VirtualMachine } from './virtual-machine.ts'
import { HOST_ADDRESS } from './virtual-machine.ts'

const PROGRAM = `
import select, socket, struct, sys, time
host, port, export, index, timeout, patience = sys.argv[1], int(sys.argv[2]), sys.argv[3].encode(), *map(int, sys.argv[4:7])

def exactly(connection, length):
    data = b''
    while len(data) < length:
        part = connection.recv(length - len(data))
        if not part: raise OSError('the server ended the negotiation')
        data += part
    return data

def negotiate():
    connection = socket.create_connection((host, port), 20)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    exactly(connection, 18)
    connection.sendall(struct.pack('>I', 3) + b'IHAVEOPT' + struct.pack('>III', 7, 6 + len(export), len(export)) + export + b'\\0\\0')
    size = flags = 0
    while True:
        _, _, kind, length = struct.unpack('>QIII', exactly(connection, 20))
        payload = exactly(connection, length)
        if kind == 1: break
        if kind >= 1 << 31: raise OSError('refused: %r' % payload)
        if kind == 3 and payload[:2] == b'\\0\\0': size, flags = struct.unpack('>QH', payload[2:12])
    connection.settimeout(None)
    return connection, size, flags

netlink = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 16)
netlink.bind((0, 0))

def attribute(kind, data):
    return struct.pack('HH', 4 + len(data), kind) + data + b'\\0' * (-len(data) % 4)

def ask(family, command, attributes):
    body = struct.pack('BBH', command, 1, 0) + attributes
    netlink.send(struct.pack('IHHII', 16 + len(body), family, 5, 1, 0) + body)
    answer = b''
    while True:
        data = netlink.recv(65536)
        while data:
            length, kind = struct.unpack('IH', data[:6])
            if kind == 2:
                error = struct.unpack('i', data[16:20])[0]
                if error: raise OSError(-error, 'netlink')
                return answer
            answer += data[20:length]
            data = data[(length + 3) & ~3:]

def attributes_of(data):
    found = {}
    while len(data) >= 4:
        length, kind = struct.unpack('HH', data[:4])
        found[kind & 0x3fff] = data[4:length]
        data = data[(length + 3) & ~3:]
    return found

nbd = struct.unpack('H', attributes_of(ask(16, 3, attribute(2, b'nbd\\0')))[1][:2])[0]
number = lambda kind, value: attribute(kind, struct.pack('Q', value))
device = attribute(1, struct.pack('I', index))
sockets = lambda connection: attribute(7, attribute(1, attribute(1, struct.pack('I', connection.fileno()))))

connection, size, flags = negotiate()
ask(nbd, 1, device + number(2, size) + number(3, 4096) + number(4, timeout) + number(5, flags) + number(8, patience) + sockets(connection))
print('attached', flush=True)
while True:
    watch = select.poll()
    watch.register(connection, select.POLLRDHUP)
    watch.poll()
    connection.close()
    print('lost', flush=True)
    # The kernel takes the next one only after it has noticed itself.
    time.sleep(0.5)
    while True:
        try:
            connection, size, flags = negotiate()
            break
        except OSError as error:
            print(error, flush=True)
            time.sleep(0.2)
    ask(nbd, 3, device + sockets(connection))
    print('attached again', flush=True)
`

export interface KernelClientOptions {
  /** Of this machine. */
  readonly port: number
  readonly exportName: string
  /** /dev/nbdN. */
  readonly index: number
  /** After which the kernel sends an unanswered request again. */
  readonly timeoutSeconds: number
}

export interface KernelClient {
  readonly device: string
  /** Everything the guardian has said. */
  said(): Promise<string>
}

/** Waits for a new connection as long as any test takes. */
const PATIENCE_SECONDS = 300

export async function attachKernelClient(
  machine: VirtualMachine,
  { port, exportName, index, timeoutSeconds }: KernelClientOptions,
): Promise<KernelClient> {
  const said = `/run/kernel-client-${index}.log`
  const program = `/run/kernel-client-${index}.py`
  const parameters = [HOST_ADDRESS, port, exportName, index, timeoutSeconds, PATIENCE_SECONDS].join(' ')
  await machine.check(
    `cat > ${program} << 'END'\n${PROGRAM}\nEND
     setsid /usr/bin/python3 ${program} ${parameters} > ${said} 2>&1 < /dev/null &
     for turn in $(seq 300); do
       if grep -q attached ${said}; then exit 0; fi
       if grep -q Traceback ${said}; then break; fi
       sleep 0.2
     done
     cat ${said} >&2; exit 1`,
    120_000,
  )
  return { device: `/dev/nbd${index}`, said: () => machine.check(`cat ${said}`) }
}
