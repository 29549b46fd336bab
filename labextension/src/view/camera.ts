/** Which part of a heatmap is on the screen, in cells from the lower left corner. Pure arithmetic. */

export interface Camera {
  left: number;
  bottom: number;
  /** Cells shown across and up. */
  across: number;
  up: number;
}

/** No closer than this many cells across: a cell must not fill the screen. */
const CLOSEST = 4;

export function whole(width: number, height: number): Camera {
  return { left: 0, bottom: 0, across: width, up: height };
}

/** Keep it on the map; a map with fewer cells than the closest look is shown whole. */
export function clamp(camera: Camera, width: number, height: number): Camera {
  const across = Math.min(Math.max(camera.across, Math.min(CLOSEST, width)), width);
  const up = Math.min(Math.max(camera.up, Math.min(CLOSEST, height)), height);
  return {
    across,
    up,
    left: Math.min(Math.max(camera.left, 0), width - across),
    bottom: Math.min(Math.max(camera.bottom, 0), height - up)
  };
}

/**
 * Show `factor` times as much, the point at (x, y) staying where it is.
 *
 * @param x, y Place on the screen as shares from the lower left, 0 to 1.
 */
export function zoom(camera: Camera, factor: number, x: number, y: number, width: number, height: number): Camera {
  const wanted = clamp(
    { ...camera, across: camera.across * factor, up: camera.up * factor },
    width,
    height
  );
  return clamp(
    {
      ...wanted,
      left: camera.left + x * (camera.across - wanted.across),
      bottom: camera.bottom + y * (camera.up - wanted.up)
    },
    width,
    height
  );
}

/** Move by shares of the screen; positive shows what is further right and further up. */
export function pan(camera: Camera, x: number, y: number, width: number, height: number): Camera {
  return clamp(
    { ...camera, left: camera.left + x * camera.across, bottom: camera.bottom + y * camera.up },
    width,
    height
  );
}

/** Move so that a cell is on the screen. */
export function reveal(camera: Camera, column: number, row: number, width: number, height: number): Camera {
  const left = Math.min(Math.max(camera.left, column + 1 - camera.across), column);
  const bottom = Math.min(Math.max(camera.bottom, row + 1 - camera.up), row);
  return clamp({ ...camera, left, bottom }, width, height);
}

/** The cell at a place on the screen (shares from the lower left), or null outside of the map. */
export function cellAt(camera: Camera, x: number, y: number, width: number, height: number): [number, number] | null {
  const column = Math.floor(camera.left + x * camera.across);
  const row = Math.floor(camera.bottom + y * camera.up);
  return column >= 0 && row >= 0 && column < width && row < height ? [column, row] : null;
}

export function zoomed(camera: Camera, width: number, height: number): boolean {
  return camera.across < width || camera.up < height;
}

/** The same part of a map of another size, so that more points arriving do not move what one looks at. */
export function resized(camera: Camera, from: [number, number], to: [number, number]): Camera {
  return from[0] === to[0] && from[1] === to[1] ? camera : whole(...to);
}

export interface Tick {
  /** Middle of the labelled cell, in cells from the start of the axis. */
  place: number;
  /** Index into the labels of the axis. */
  label: number;
}

/**
 * Choose labels to write: those on the screen, every n-th such that at most `most` are written.
 *
 * @param positions Positions on the axis of the labels that are known, ascending.
 * @param bin Positions per cell.
 */
export function chooseTicks(positions: number[], bin: number, start: number, length: number, most: number): Tick[] {
  const shown: Tick[] = [];
  positions.forEach((position, label) => {
    const place = Math.floor(position / bin) + 0.5;
    if (place >= start && place <= start + length) {
      shown.push({ place, label });
    }
  });
  const step = steps(Math.max(Math.ceil(shown.length / Math.max(most, 1)), 1));
  return shown.filter(({ label }) => label % step === 0);
}

/** The next of 1, 2, 4, 5, 10, 20, …: every second or fifth label reads better than every third. */
function steps(least: number): number {
  let power = 1;
  for (;;) {
    for (const factor of [1, 2, 4, 5]) {
      if (factor * power >= least) {
        return factor * power;
      }
    }
    power *= 10;
  }
}

/** Labels of one cell of the map: "0.25", "0.25 to 0.5" where it stands for several, "about 0.3" where unsure. */
export function labelOf(axis: { labels: string[]; positions: number[]; size: number; kind: string }, cell: number, bin: number): string {
  const first = cell * bin;
  const last = Math.min(first + bin, axis.size) - 1;
  const low = labelAt(axis, first);
  return first === last ? low : `${low} to ${labelAt(axis, last)}`;
}

function labelAt(axis: { labels: string[]; positions: number[]; kind: string }, position: number): string {
  const { labels, positions } = axis;
  let at = positions.length - 1;
  if (positions[position] === position) {
    at = position;
  } else {
    while (at > 0 && positions[at] > position) {
      at--;
    }
  }
  if (positions[at] === position || at + 1 >= positions.length) {
    return labels[at] ?? '';
  }
  const [from, to] = [Number(labels[at]), Number(labels[at + 1])];
  if (axis.kind !== 'number' || !Number.isFinite(from) || !Number.isFinite(to)) {
    return `${labels[at]} … ${labels[at + 1]}`;
  }
  const share = (position - positions[at]) / (positions[at + 1] - positions[at]);
  // Between equally signed labels that grow by a factor, the middle is the geometric one.
  const factor = from > 0 && to / from > 4;
  const value = factor ? from * (to / from) ** share : from + (to - from) * share;
  return `about ${Number(value.toPrecision(4))}`;
}
