/** The cells of a heatmap: decoded, shrunk, coloured. */

import { EXCLUDED, RANK } from './statuses';

/** Two bytes a cell, row by row: status, share known. */
export interface Cells {
  width: number;
  height: number;
  status: Uint8Array;
  share: Uint8Array;
}

/**
 * Undo base64 and zlib.
 *
 * @throws Error when the bytes are not as many as the size says.
 */
export async function decode(text: string, width: number, height: number): Promise<Cells> {
  const packed = Uint8Array.from(atob(text), character => character.charCodeAt(0));
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream('deflate'));
  const bytes = new Uint8Array(2 * width * height);
  const reader = stream.getReader();
  let length = 0;
  for (let part = await reader.read(); !part.done; part = await reader.read()) {
    // What is too long is counted, not kept.
    bytes.set(
      part.value.subarray(0, Math.max(bytes.length - length, 0)),
      Math.min(length, bytes.length)
    );
    length += part.value.length;
  }
  return unpack(length === bytes.length ? bytes : new Uint8Array(length), width, height);
}

export function unpack(bytes: Uint8Array, width: number, height: number): Cells {
  const size = width * height;
  if (bytes.length !== 2 * size) {
    throw new Error(
      `The heatmap has ${bytes.length} bytes; ${width} x ${height} cells need ${2 * size}.`
    );
  }
  const status = new Uint8Array(size);
  const share = new Uint8Array(size);
  for (let cell = 0; cell < size; cell++) {
    status[cell] = bytes[2 * cell];
    share[cell] = bytes[2 * cell + 1];
  }
  return { width, height, status, share };
}

/**
 * One cell for each block of `across` x `up`: the most telling status, so that no failure vanishes, and the mean share.
 *
 * Blocks are counted from cell (0, 0), hence the same wherever one looks.
 */
export function shrink(cells: Cells, across: number, up: number): Cells {
  const width = Math.ceil(cells.width / across);
  const height = Math.ceil(cells.height / up);
  const status = new Uint8Array(width * height).fill(EXCLUDED);
  const share = new Uint8Array(width * height);
  const block = Uint32Array.from({ length: cells.width }, (_, column) =>
    Math.floor(column / across)
  );
  const known = new Uint32Array(width * height);
  const points = new Uint32Array(width * height);
  for (let row = 0; row < cells.height; row++) {
    const from = row * cells.width;
    const to = Math.floor(row / up) * width;
    for (let column = 0; column < cells.width; column++) {
      const code = cells.status[from + column];
      if (code !== EXCLUDED) {
        const at = to + block[column];
        known[at] += cells.share[from + column];
        points[at]++;
        if (RANK[code] > RANK[status[at]]) {
          status[at] = code;
        }
      }
    }
  }
  for (let at = 0; at < status.length; at++) {
    // One cell done of ten is a tenth of the way, not done.
    share[at] = points[at] ? Math.floor(known[at] / points[at]) : 0;
  }
  return { width, height, status, share };
}

export type Colour = readonly [number, number, number];

/** Read `#rgb`, `#rrggbb` and `rgb(…)`; anything else is a middle grey, so that a theme cannot break the map. */
export function parse(text: string): Colour {
  const value = text.trim();
  const hex = /^#([0-9a-f]{3}|[0-9a-f]{6})$/i.exec(value)?.[1];
  if (hex) {
    const full = hex.length === 3 ? [...hex].map(digit => digit + digit).join('') : hex;
    return [0, 2, 4].map(at => parseInt(full.slice(at, at + 2), 16)) as unknown as Colour;
  }
  const parts = /^rgba?\(\s*([\d.]+)[\s,]+([\d.]+)[\s,]+([\d.]+)/i.exec(value);
  return parts ? [Number(parts[1]), Number(parts[2]), Number(parts[3])] : [128, 128, 128];
}

export function mix(from: Colour, to: Colour, share: number): Colour {
  return from.map((value, channel) =>
    Math.round(value + (to[channel] - value) * share)
  ) as unknown as Colour;
}

/**
 * Colours of every (status, share known), as 32-bit pixels in memory order R, G, B, A.
 *
 * Done and stale fade in from pending as more points of the cell are known; failures are never faded. What has no
 * point is transparent.
 */
export function palette(colours: readonly Colour[]): Uint32Array {
  const bytes = new Uint8ClampedArray(4 * 256 * 256);
  colours.forEach((colour, code) => {
    const fades = code === 2 || code === 7 || code === 6;
    for (let share = 0; share < 256; share++) {
      // A third of the way at once: what has begun must show.
      const level = fades && share < 255 ? 0.3 + (0.6 * share) / 255 : 1;
      const shown = mix(colours[0], colour, code === 0 ? 0 : level);
      bytes.set([...shown, 255], 4 * (256 * code + share));
    }
  });
  return new Uint32Array(bytes.buffer);
}

/** Pixels of the cells, row 0 at the bottom, as plots have it. */
export function paint(cells: Cells, colours: Uint32Array): Uint8ClampedArray {
  const pixels = new Uint32Array(cells.width * cells.height);
  for (let row = 0; row < cells.height; row++) {
    const from = row * cells.width;
    const to = (cells.height - 1 - row) * cells.width;
    for (let column = 0; column < cells.width; column++) {
      const cell = from + column;
      pixels[to + column] = colours[(cells.status[cell] << 8) | cells.share[cell]];
    }
  }
  return new Uint8ClampedArray(pixels.buffer);
}
