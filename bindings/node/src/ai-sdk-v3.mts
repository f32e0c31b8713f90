// The same for `import`: there is one copy of everything, however it is loaded.

export * from "./ai-sdk-v3.js";
