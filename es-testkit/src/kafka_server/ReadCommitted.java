import java.io.PrintStream;
import java.time.Duration;
import java.util.List;
import java.util.Map;
import java.util.Properties;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.header.Header;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;

/**
 * Prints what a read_committed consumer sees of a topic, from its beginning to its last stable offset.
 *
 * <p>Arguments: bootstrap servers, topic, a number of records, milliseconds. While there are fewer records than that, it goes on for so long.
 * One line per record: partition, offset, timestamp, key, value, then name and value of each header, joined by tabs. Bytes that are not
 * printable ASCII, and backslashes, are written as \xHH; null as \N.
 */
public class ReadCommitted {
    public static void main(String[] arguments) {
        Properties settings = new Properties();
        settings.put("bootstrap.servers", arguments[0]);
        settings.put("isolation.level", "read_committed");
        settings.put("enable.auto.commit", "false");
        settings.put("allow.auto.create.topics", "false");
        String topic = arguments[1];
        long wanted = Long.parseLong(arguments[2]);
        long deadline = System.currentTimeMillis() + Long.parseLong(arguments[3]);
        long seen = 0;
        PrintStream out = new PrintStream(System.out, false);
        try (KafkaConsumer<byte[], byte[]> consumer =
                new KafkaConsumer<>(settings, new ByteArrayDeserializer(), new ByteArrayDeserializer())) {
            List<TopicPartition> partitions =
                    consumer.partitionsFor(topic).stream().map(p -> new TopicPartition(topic, p.partition())).toList();
            consumer.assign(partitions);
            consumer.seekToBeginning(partitions);
            StringBuilder line = new StringBuilder();
            do {
                // Under read_committed the end is the last stable offset, and the position passes over what was aborted.
                Map<TopicPartition, Long> ends = consumer.endOffsets(partitions);
                while (partitions.stream().anyMatch(p -> consumer.position(p) < ends.get(p))) {
                    for (ConsumerRecord<byte[], byte[]> record : consumer.poll(Duration.ofMillis(100))) {
                        seen++;
                        line.setLength(0);
                        line.append(record.partition()).append('\t').append(record.offset()).append('\t').append(record.timestamp());
                        append(line, record.key());
                        append(line, record.value());
                        for (Header header : record.headers()) {
                            append(line, header.key().getBytes(java.nio.charset.StandardCharsets.UTF_8));
                            append(line, header.value());
                        }
                        out.append(line).append('\n');
                    }
                }
            } while (seen < wanted && System.currentTimeMillis() < deadline);
        }
        out.flush();
    }

    private static void append(StringBuilder line, byte[] bytes) {
        line.append('\t');
        if (bytes == null) {
            line.append("\\N");
            return;
        }
        for (byte b : bytes) {
            if (b >= ' ' && b <= '~' && b != '\\') {
                line.append((char) b);
            } else {
                line.append(String.format("\\x%02x", b & 0xff));
            }
        }
    }
}
