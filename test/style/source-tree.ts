/**
 * What the style tests want to know of one TypeScript file, taken from the compiler's own syntax tree: what it imports,
 * which names it declares, which it uses. Comments and strings are never mistaken for code.
 */

import ts from 'typescript'
import type { ProjectFile } from './project-files.ts'

export interface ImportEdge {
  /** As written. */
  readonly specifier: string
  /** `type`: nothing of it is left at run time. `worker`: the other file runs in a thread of its own. */
  readonly kind: 'value' | 'type' | 'worker'
  readonly line: number
}

export interface NameUse {
  readonly name: string
  readonly line: number
}

const parsed = new WeakMap<ProjectFile, ts.SourceFile>()

function parse(file: ProjectFile): ts.SourceFile {
  const known = parsed.get(file)
  if (known !== undefined) return known
  const source = ts.createSourceFile(file.path, file.text, ts.ScriptTarget.Latest, true)
  parsed.set(file, source)
  return source
}

function walk(node: ts.Node, visit: (node: ts.Node) => void): void {
  visit(node)
  ts.forEachChild(node, (child) => {
    walk(child, visit)
  })
}

const edgesOf = new WeakMap<ProjectFile, readonly ImportEdge[]>()

/** Imports, re-exports, `import()`, and workers: `new URL('./x.js', import.meta.url)`. */
export function importsOf(file: ProjectFile): readonly ImportEdge[] {
  const known = edgesOf.get(file) ?? findImports(file)
  edgesOf.set(file, known)
  return known
}

function findImports(file: ProjectFile): ImportEdge[] {
  const source = parse(file)
  const edges: ImportEdge[] = []
  const add = (specifier: ts.Node | undefined, kind: ImportEdge['kind']): void => {
    if (specifier === undefined || !ts.isStringLiteralLike(specifier)) return
    edges.push({ specifier: specifier.text, kind, line: lineOf(source, specifier) })
  }
  walk(source, (node) => {
    if (ts.isImportDeclaration(node)) add(node.moduleSpecifier, isTypeImport(node) ? 'type' : 'value')
    else if (ts.isExportDeclaration(node)) add(node.moduleSpecifier, node.isTypeOnly ? 'type' : 'value')
    else if (ts.isImportTypeNode(node) && ts.isLiteralTypeNode(node.argument)) add(node.argument.literal, 'type')
    else if (ts.isCallExpression(node) && node.expression.kind === ts.SyntaxKind.ImportKeyword) {
      add(node.arguments[0], 'value')
    } else if (ts.isNewExpression(node) && node.expression.getText() === 'URL') {
      if (node.arguments?.[1]?.getText() === 'import.meta.url') add(node.arguments[0], 'worker')
    }
  })
  return edges
}

function isTypeImport(node: ts.ImportDeclaration): boolean {
  const clause = node.importClause
  if (clause === undefined) return false
  if (clause.phaseModifier === ts.SyntaxKind.TypeKeyword) return true
  const bindings = clause.namedBindings
  if (clause.name !== undefined || bindings === undefined || !ts.isNamedImports(bindings)) return false
  return bindings.elements.length > 0 && bindings.elements.every((element) => element.isTypeOnly)
}

/**
 * Names that the file itself chose: of variables, parameters, functions, fields and types. Members of an interface
 * may be somebody else's choice (Node's, a library's) and are left out.
 */
export function declaredNames(file: ProjectFile): NameUse[] {
  const source = parse(file)
  const names: NameUse[] = []
  walk(source, (node) => {
    const isChoice =
      ts.isVariableDeclaration(node) ||
      ts.isParameter(node) ||
      ts.isFunctionDeclaration(node) ||
      ts.isPropertyDeclaration(node) ||
      ts.isInterfaceDeclaration(node) ||
      ts.isTypeAliasDeclaration(node) ||
      ts.isClassDeclaration(node)
    if (!isChoice || node.name === undefined) return
    if (ts.isIdentifier(node.name) || ts.isPrivateIdentifier(node.name)) {
      names.push({ name: node.name.text.replace(/^#/u, ''), line: lineOf(source, node.name) })
    }
  })
  return names
}

/** Where the code says `object.member` of two plain names. */
export function memberUses(file: ProjectFile, object: string): NameUse[] {
  // Most files do not: they need not be parsed.
  if (!file.text.includes(`${object}.`)) return []
  const source = parse(file)
  const names: NameUse[] = []
  walk(source, (node) => {
    if (ts.isPropertyAccessExpression(node) && ts.isIdentifier(node.expression) && node.expression.text === object) {
      names.push({ name: `${object}.${node.name.text}`, line: lineOf(source, node) })
    }
  })
  return names
}

function lineOf(source: ts.SourceFile, node: ts.Node): number {
  return source.getLineAndCharacterOfPosition(node.getStart(source)).line + 1
}
