import java.nio.charset.StandardCharsets;
import java.util.Properties;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.serialization.ByteArraySerializer;

/**
 * Writes one record to a partition of one's choice, wherever its key belongs.
 *
 * <p>Arguments: bootstrap servers, topic, partition, key, value.
 */
public class InPartition {
    public static void main(String[] arguments) throws Exception {
        Properties settings = new Properties();
        settings.put("bootstrap.servers", arguments[0]);
        byte[] key = arguments[3].getBytes(StandardCharsets.UTF_8);
        byte[] value = arguments[4].getBytes(StandardCharsets.UTF_8);
        try (KafkaProducer<byte[], byte[]> producer =
                new KafkaProducer<>(settings, new ByteArraySerializer(), new ByteArraySerializer())) {
            producer.send(new ProducerRecord<>(arguments[1], Integer.valueOf(arguments[2]), key, value)).get();
        }
    }
}
