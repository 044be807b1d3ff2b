/** How loud sound is: amplitudes, and the part of a meter that they fill. */

/** A meter's empty end: a quiet room. Its full end is full scale. */
const FLOOR_DB = -54;
/** 21 ms at 48 kHz: short enough to follow speech. */
const WINDOW_SAMPLES = 1024;

/** The filled part of a meter, 0 to 1, for an amplitude of 0 to 1. Loudness is heard in decibels. */
export function meterPart(amplitude: number): number {
  if (!(amplitude > 0)) return 0;
  const decibels = 20 * Math.log10(Math.min(1, amplitude));
  return Math.max(0, 1 - decibels / FLOOR_DB);
}

/** Measures a live track. */
export interface Meter {
  /** Root mean square of the last moments, 0 to 1. */
  level(): number;
  close(): void;
}

/** Measures by WebAudio. Where the browser has none, the meter stays empty. */
export function meterOf(track: MediaStreamTrack): Meter {
  if (typeof AudioContext === "undefined") return { level: () => 0, close: () => undefined };
  const context = new AudioContext();
  const analyser = context.createAnalyser();
  analyser.fftSize = WINDOW_SAMPLES;
  const source = context.createMediaStreamSource(new MediaStream([track]));
  source.connect(analyser);
  void context.resume().catch(() => undefined);
  const samples = new Float32Array(analyser.fftSize);
  return {
    level: () => {
      analyser.getFloatTimeDomainData(samples);
      return rootMeanSquare(samples);
    },
    close: () => {
      source.disconnect();
      void context.close().catch(() => undefined);
    },
  };
}

export function rootMeanSquare(samples: Float32Array): number {
  let sum = 0;
  for (const sample of samples) sum += sample * sample;
  return samples.length === 0 ? 0 : Math.sqrt(sum / samples.length);
}
