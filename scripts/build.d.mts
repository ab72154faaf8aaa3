/** Throws with the compiler's words when something does not compile. */
export function build(): Promise<void>
/** The compiler's path, or undefined where only the production dependencies are installed. */
export function compilerPath(): string | undefined
