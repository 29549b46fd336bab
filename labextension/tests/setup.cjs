// What browsers have and jsdom lacks.
const { TextDecoder, TextEncoder } = require('node:util');
const { Blob } = require('node:buffer');
const web = require('node:stream/web');

Object.assign(globalThis, {
  TextDecoder,
  TextEncoder,
  Blob,
  ReadableStream: web.ReadableStream,
  DecompressionStream: web.DecompressionStream,
  CompressionStream: web.CompressionStream,
  DragEvent: class extends Event {},
  ResizeObserver: class {
    observe() {}
    unobserve() {}
    disconnect() {}
  }
});

// jsdom complains at length instead of saying that it has no canvas.
globalThis.HTMLCanvasElement.prototype.getContext = () => null;
