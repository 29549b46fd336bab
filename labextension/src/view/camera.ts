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
export function zoom(
  camera: Camera,
  factor: number,
  x: number,
  y: number,
  width: number,
  height: number
): Camera {
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
export function reveal(
  camera: Camera,
  column: number,
  row: number,
  width: number,
  height: number
): Camera {
  const left = Math.min(Math.max(camera.left, column + 1 - camera.across), column);
  const bottom = Math.min(Math.max(camera.bottom, row + 1 - camera.up), row);
  return clamp({ ...camera, left, bottom }, width, height);
}

/** The cell at a place on the screen (shares from the lower left), or null outside of the map. */
export function cellAt(
  camera: Camera,
  x: number,
  y: number,
  width: number,
  height: number
): [number, number] | null {
  const column = Math.floor(camera.left + x * camera.across);
  const row = Math.floor(camera.bottom + y * camera.up);
  return column >= 0 && row >= 0 && column < width && row < height ? [column, row] : null;
}

export function zoomed(camera: Camera, width: number, height: number): boolean {
  return camera.across < width || camera.up < height;
}
