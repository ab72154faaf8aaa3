/**
 * The linter's settings: typescript-eslint at its strictest with types, and the few rules of this project that a linter
 * can see (the rest is in test/style). A rule that is switched off says why.
 */

import js from '@eslint/js'
import tseslint from 'typescript-eslint'

const KOFFI_ONLY_IN =
  'koffi belongs to src/posix and src/engine/io-uring; ask posix for an owned descriptor or a named call instead'

/** What no file may do, whatever its folder; each names the replacement. */
const bannedSyntax = [
  {
    selector: "CallExpression[callee.object.name='process'][callee.property.name='exit']",
    message: 'Set process.exitCode and let everything be disposed, instead of process.exit.',
  },
  {
    selector: 'ExportDefaultDeclaration',
    message: 'Export by name: a default export has a different name in each importer.',
  },
  { selector: 'TSEnumDeclaration', message: 'Write `const X = {...} as const` and `type X = ...` instead of an enum.' },
]

const strict = {
  '@typescript-eslint/consistent-type-imports': ['error', { fixStyle: 'separate-type-imports' }],
  '@typescript-eslint/consistent-type-exports': 'error',
  '@typescript-eslint/switch-exhaustiveness-check': [
    'error',
    { requireDefaultForNonUnion: true, considerDefaultExhaustiveForUnions: true },
  ],
  '@typescript-eslint/restrict-template-expressions': ['error', { allowNumber: true, allowBoolean: true }],
  '@typescript-eslint/no-unused-vars': ['error', { argsIgnorePattern: '^_', varsIgnorePattern: '^_' }],
  '@typescript-eslint/no-import-type-side-effects': 'error',
  // `while (true)` is how a loop that leaves in its middle is written.
  '@typescript-eslint/no-unnecessary-condition': ['error', { allowConstantLoopConditions: 'only-allowed-literals' }],
  '@typescript-eslint/no-confusing-void-expression': ['error', { ignoreArrowShorthand: true }],
  // A class that only implements the parts of an interface that it needs keeps the interface's signature.
  '@typescript-eslint/no-empty-function': 'off',
  // A typed array read at an index that is in range is `as number`: it names the type, and `!` is banned.
  '@typescript-eslint/non-nullable-type-assertion-style': 'off',
  // Integers as flags and bit fields are the business of this program.
  'no-bitwise': 'off',
  eqeqeq: ['error', 'always'],
  'no-restricted-syntax': ['error', ...bannedSyntax],
  'no-restricted-imports': ['error', { paths: [{ name: 'koffi', message: KOFFI_ONLY_IN }] }],
  'object-shorthand': 'error',
  'prefer-const': 'error',
}

export default tseslint.config(
  { ignores: ['dist/', 'node_modules/', 'coverage/', '.cache/'] },
  { linterOptions: { reportUnusedDisableDirectives: 'error' } },
  js.configs.recommended,
  {
    files: ['**/*.ts'],
    extends: [tseslint.configs.strictTypeChecked, tseslint.configs.stylisticTypeChecked],
    languageOptions: { parserOptions: { projectService: true, tsconfigRootDir: import.meta.dirname } },
    rules: strict,
  },
  {
    files: ['src/**/*.ts'],
    rules: {
      complexity: ['error', { max: 20, variant: 'modified' }],
      'max-depth': ['error', 4],
      'max-lines': ['error', { max: 400, skipBlankLines: true, skipComments: true }],
      'max-lines-per-function': ['error', { max: 70, skipBlankLines: true, skipComments: true, IIFEs: true }],
      'no-console': 'error',
    },
  },
  { files: ['src/posix/**/*.ts', 'src/engine/io-uring/**/*.ts'], rules: { 'no-restricted-imports': 'off' } },
  {
    // Tests look at what is not meant for others, and hand wrong things in on purpose.
    files: ['test/**/*.ts'],
    rules: {
      '@typescript-eslint/no-unsafe-assignment': 'off',
      '@typescript-eslint/no-unsafe-member-access': 'off',
      '@typescript-eslint/no-unsafe-argument': 'off',
      '@typescript-eslint/no-non-null-assertion': 'off',
      '@typescript-eslint/require-await': 'off',
      '@typescript-eslint/unbound-method': 'off',
      'no-restricted-imports': 'off',
    },
  },
  {
    // Vitest reads its configuration and its global setup from a default export.
    files: ['vitest.config.ts', 'test/support/global-setup.ts', 'test/docker/container-setup.ts'],
    rules: { 'no-restricted-syntax': 'off' },
  },
  {
    files: ['**/*.{js,mjs,cjs}'],
    languageOptions: {
      globals: {
        process: 'readonly',
        console: 'readonly',
        Buffer: 'readonly',
        URL: 'readonly',
        setTimeout: 'readonly',
        clearTimeout: 'readonly',
        require: 'readonly',
        module: 'readonly',
        fetch: 'readonly',
      },
    },
  },
)
