/**
 * What the server says while options are haggled over, as bytes: the greeting, replies to options, the answer to
 * NBD_OPT_EXPORT_NAME. It decides nothing; see negotiation.ts.
 */

import { ByteWriter } from '../foundation/byte-writer.ts'
import {
  IHAVEOPT,
  NBDMAGIC,
  NBD_FLAG_FIXED_NEWSTYLE,
  NBD_FLAG_NO_ZEROES,
  NBD_INFO_BLOCK_SIZE,
  NBD_INFO_DESCRIPTION,
  NBD_INFO_EXPORT,
  NBD_INFO_NAME,
  NBD_REP_INFO,
  NBD_REP_MAGIC,
  NBD_REP_SERVER,
  NBD_STRING_BYTES_MAX,
} from './constants.ts'
import type { ExportOffer } from './export-catalogue.ts'
import { encodeProtocolString } from './protocol-string.ts'

const NOTHING = new Uint8Array(0)
const RESERVED_ZEROES = 124

export function writeGreeting(writer: ByteWriter): void {
  writer
    .uint64(NBDMAGIC)
    .uint64(IHAVEOPT)
    .uint16(NBD_FLAG_FIXED_NEWSTYLE | NBD_FLAG_NO_ZEROES)
}

export function writeOptionReply(writer: ByteWriter, option: number, type: number, data: Uint8Array = NOTHING): void {
  writer.uint64(NBD_REP_MAGIC).uint32(option).uint32(type).uint32(data.length).bytes(data)
}

/** An error reply with its text. A text that is too long for the protocol is left out. */
export function writeOptionError(writer: ByteWriter, option: number, type: number, message: string): void {
  writeOptionReply(writer, option, type, stringOrNothing(message))
}

/** One NBD_REP_SERVER: an export and, if it has one, its description. */
export function writeServer(writer: ByteWriter, option: number, name: string, description: string): void {
  const nameBytes = encodeProtocolString(name)
  const descriptionBytes = stringOrNothing(description)
  const data = new ByteWriter(4 + nameBytes.length + descriptionBytes.length)
    .uint32(nameBytes.length)
    .bytes(nameBytes)
    .bytes(descriptionBytes)
  writeOptionReply(writer, option, NBD_REP_SERVER, data.take())
}

/** The one NBD_REP_INFO that no successful INFO or GO goes without. */
export function writeInfoExport(writer: ByteWriter, option: number, offer: ExportOffer): void {
  const data = new ByteWriter(12)
    .uint16(NBD_INFO_EXPORT)
    .uint64(BigInt(offer.sizeBytes))
    .uint16(offer.transmissionFlags)
  writeOptionReply(writer, option, NBD_REP_INFO, data.take())
}

export function writeInfoName(writer: ByteWriter, option: number, offer: ExportOffer): void {
  writeInfoString(writer, option, NBD_INFO_NAME, encodeProtocolString(offer.name))
}

/** Nothing at all when there is no description: the item is optional. */
export function writeInfoDescription(writer: ByteWriter, option: number, offer: ExportOffer): void {
  const description = stringOrNothing(offer.description)
  if (description.length > 0) writeInfoString(writer, option, NBD_INFO_DESCRIPTION, description)
}

export function writeInfoBlockSize(
  writer: ByteWriter,
  option: number,
  offer: ExportOffer,
  payloadBytesMax: number,
): void {
  const data = new ByteWriter(14)
    .uint16(NBD_INFO_BLOCK_SIZE)
    .uint32(offer.minimumBlockBytes)
    .uint32(offer.preferredBlockBytes)
    .uint32(payloadBytesMax)
  writeOptionReply(writer, option, NBD_REP_INFO, data.take())
}

/** The answer to NBD_OPT_EXPORT_NAME, which has no reply header. */
export function writeExportNameAnswer(writer: ByteWriter, offer: ExportOffer, noZeroes: boolean): void {
  writer.uint64(BigInt(offer.sizeBytes)).uint16(offer.transmissionFlags)
  if (!noZeroes) writer.zeroes(RESERVED_ZEROES)
}

function writeInfoString(writer: ByteWriter, option: number, type: number, text: Uint8Array): void {
  writeOptionReply(writer, option, NBD_REP_INFO, new ByteWriter(2 + text.length).uint16(type).bytes(text).take())
}

function stringOrNothing(text: string): Uint8Array {
  const bytes = encodeProtocolString(text)
  return bytes.length <= NBD_STRING_BYTES_MAX ? bytes : NOTHING
}
